// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* What the forward program and userspace share of a flow: two peers whose packets
 * are rewritten into each other's and sent on, below the host's own stack.
 */
#include "common.h"
#include "forward_rules.h"

#define DEFAULT_RECORDS 65536
#define FORWARD_EVENTS_BYTES (1 << 20)

/* Side 0 is the client, side 1 the backend; a record's side is the one that a
 * packet comes from.
 */
enum { CLIENT, BACKEND, SIDES };

/* What becomes of a flow's packets. Userspace moves FREE to WATCHED, WATCHED to
 * ARMED and back, FORWARDED or ENDED to RESET, and any to FREE; the program ARMED
 * to FORWARDED (the cut) and FORWARDED to ENDED. Each by one compare and exchange:
 * who loses it does as the other state says.
 */
enum flow_state {
	FREE,
	WATCHED,   /* the host's sockets have the packets; numbers are kept */
	ARMED,     /* the same, until a packet finds nothing under way: the cut */
	FORWARDED, /* packets are rewritten and sent on */
	ENDED,     /* by both ends of stream, acknowledged, or by a reset; still sent on */
	RESET,     /* by us: packets are dropped, and userspace answers them */
};

/* Flags of a record. The program sets those that tell what it saw. */
enum flow_flags {
	SEEN_CLIENT = 1 << 0, /* a packet since registering that tells; SEEN_CLIENT << side */
	SEEN_BACKEND = 1 << 1,
	FIN_CLIENT = 1 << 2, /* its end of stream has been seen */
	FIN_BACKEND = 1 << 3,
	FINACK_CLIENT = 1 << 4, /* and acknowledged by the other side */
	FINACK_BACKEND = 1 << 5,
	FIRST_FIN_BACKEND = 1 << 8, /* its end of stream came first */
	GONE_CLIENT = 1 << 9,       /* its key was another flow's turn: not ours to delete */
};

/* A packet's addresses as it arrives; IPv4 is written ::ffff:a.b.c.d. */
struct flow_key {
	__u32 saddr[4];
	__u32 daddr[4];
	__be16 sport;
	__be16 dport;
};

struct flow_ref {
	__u32 slot;
	__u32 side;
};

/* What is done to a packet that comes from this side, and what its packets have
 * said so far. Sequence numbers are this side's own; acknowledgements and windows
 * that it sends are kept in the numbers it sends them in: those of the socket that
 * it was connected to.
 */
struct flow_side {
	/* Constants from the cut on: one cache line. */
	__u32 saddr[4]; /* the packet's new addresses, as in a key */
	__u32 daddr[4];
	__be16 sport;
	__be16 dport;
	__u32 ifindex;   /* device that leads to the other side */
	__u32 addr_diff; /* what the new addresses add to a checksum */
	__u32 seq_add;   /* to its sequence numbers */
	__u32 ack_add;   /* to its acknowledgements, SACK blocks too */
	__u32 tsval_add;
	__u32 tsecr_add;
	__u32 tsecr_min; /* the first timestamp of the other side that it was sent */

	__u8 scale_in;  /* of its windows */
	__u8 scale_out; /* of the windows that the other side takes for the host's */
	__u16 widest;   /* window that it has offered, in its own unit */
	__u32 next;     /* highest sequence number plus one that it has sent */
	__u32 fin;      /* sequence number after its end of stream, if FIN */
	__u32 edge;     /* right edge of the highest window offered for it, by our socket too */
	__u64 acked;    /* highest acknowledgement; upper half counts the wraps */
	__u64 base;     /* of it at the cut: what it has taken since is the difference */
	__u64 data_ns;  /* CLOCK_MONOTONIC: its last new payload */
	__u64 seen_ns;  /* its last packet */
	__u64 packets;  /* since the cut */
	__u32 cut;      /* its next sequence number at the cut: sockets have what is before */
	__u32 asked;    /* after a reset of ours: what a packet of it acknowledges */
};

/* What ended a flow: the first of these that happened. */
enum flow_end {
	GOES_ON,
	BY_FINS, /* both ends of stream, acknowledged */
	BY_RESET_OF_CLIENT,
	BY_RESET_OF_BACKEND,
};

struct flow_record {
	__u32 state;
	__u32 flags;
	__u32 index;    /* of the record, as events have it */
	__u32 end;      /* enum flow_end */
	__u64 cut_ns;   /* CLOCK_MONOTONIC */
	__u64 first_ns; /* the backend's first payload after the cut; 0: none yet */
	__u64 ended_ns;
	__u32 read[SIDES]; /* next sequence number that userspace had to read at registering */
	__u64 unused[2];   /* sides begin on a cache line */
	struct flow_side side[SIDES];
};

/* Why a pair of sockets can't be forwarded; userspace has a word for each. */
enum flow_refusal {
	FITS,
	NO_SOCKET,     /* not found, or not this host's TCP */
	NOT_CONNECTED, /* in a state that has no place here */
	LOCAL_CLIENT,  /* its packets never pass a device */
	LOCAL_BACKEND,
	NO_DEVICE,      /* packets come by a device that isn't hooked, or go by another */
	XFRM,           /* a policy of IPsec applies */
	ONE_TIMESTAMPS, /* one leg has them */
	ONE_ECN,
	MSS, /* one side may send segments that the other can't take */
	WSCALE,
	KEY_TAKEN, /* another flow has the addresses */
	ORDER,     /* userspace holds bytes, or numbers don't add up */
	FAMILY,    /* IPv4 on one leg, IPv6 on the other */
};

enum forward_outcome {
	FORWARD_SENT, /* rewritten and sent on */
	FORWARD_UP,   /* of a flow whose sockets live: left to them */
	FORWARD_CUT,
	FORWARD_UNQUIET, /* armed, but something was under way */
	FORWARD_ODD,     /* can't be translated: dropped */
	FORWARD_TTL,     /* no hops left: dropped */
	FORWARD_RESET,   /* of a flow that was reset: dropped */
	FORWARD_UNSURE,  /* numbers that its peer can't have: sent on, not believed */
	FORWARD_ICMP,    /* error about a flow: rewritten and sent on */
	FORWARD_LOST_EVENT,
	FORWARD_ECN,   /* taken out of a client's SYN */
	FORWARD_PLAIN, /* a SYN without what the other leg doesn't have: the host's, or a client's */
	FORWARD_OUTCOMES,
};

/* Kinds of an event; its low 24 bits are the record's index. */
#define EVENT_CUT (1U << 24)
#define EVENT_FINS (2U << 24) /* both ends of stream have been seen */
#define EVENT_END (3U << 24)
#define EVENT_AFTER (4U << 24) /* a packet of a flow that was reset */

/* index -> record. Written by both sides. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, DEFAULT_RECORDS);
	__type(key, __u32);
	__type(value, struct flow_record);
} records SEC(".maps");

/* What the cut is decided by. A map that is mmap-able can't have a lock. */
struct flow_watch {
	struct bpf_spin_lock lock;
	__u32 in[SIDES];     /* highest sequence number plus one left to the socket */
	__u64 raised[SIDES]; /* when that was, CLOCK_MONOTONIC */
	__u32 wrote[SIDES];  /* our socket's next number toward it when the flow was registered */
	__u64 since;         /* when that was */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DEFAULT_RECORDS);
	__type(key, __u32);
	__type(value, struct flow_watch);
} watches SEC(".maps");

/* Both directions of each flow: a look-up decides every packet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * DEFAULT_RECORDS);
	__type(key, struct flow_key);
	__type(value, struct flow_ref);
} flow_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, FORWARD_EVENTS_BYTES);
} forward_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FORWARD_OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} forward_counts SEC(".maps");

/* Counts that userspace reads as memory. */
struct forward_shared {
	__u64 ends;    /* flows of which both ends of stream, or a reset, were seen */
	__u64 woke_ns; /* when an event last woke userspace */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct forward_shared);
} forward_common SEC(".maps");
