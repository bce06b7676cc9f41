// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

#include "common.h"

#define MAX_BOARDS 1024
#define WINDOW 1024 /* a power of two */
#define MAX_LISTENERS 4096
#define MAX_PICKS 65536
#define FAREWELLS 32768 /* a power of two */

/* A front address. IPv4 is written ::ffff:a.b.c.d, so that there is one map;
 * the wildcards are ::ffff:0.0.0.0 and ::.
 */
struct listener_key {
	__u32 addr[4]; /* network order */
	__u16 port;    /* host order */
	__u16 pad;
};

/* One of a pool's two runs of coming picks. `counter` is the next ticket; a
 * closed window's is beyond any end.
 */
struct window {
	__u64 counter;
	__u64 end;
};

struct board {
	__u32 live; /* index of the window that hands out, 0 or 1 */
	__u32 pad;
	struct window window[2];
	__u64 spare[3]; /* one board, one cache line */
};

/* Backend numbers in the order of the picks. */
struct picks {
	__u32 id[2][WINDOW];
};

/* A connection as the accepting side sees it; both ports in network order. */
struct tuple {
	__u32 client[4]; /* network order */
	__u32 server[4];
	__be16 client_port;
	__be16 server_port;
};

struct pick {
	__u32 backend;
	__u32 pad;
	__u64 at; /* CLOCK_MONOTONIC, ns */
};

enum dispatch_outcome {
	PICKED,
	REMEMBERED, /* a retransmitted SYN, the last ACK under SYN cookies */
	EXHAUSTED,  /* the window is closed or at its end: userspace picks */
	NOT_STORED, /* the picks map took no entry: userspace picks */
	STRAY,      /* of a connection that has just ended: no ticket */
	DISPATCH_OUTCOMES,
};

/* listen address -> pool slot */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_LISTENERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct listener_key);
	__type(value, __u32);
} listeners SEC(".maps");

/* pool slot -> its windows; written by both sides */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_BOARDS);
	__type(key, __u32);
	__type(value, struct board);
} boards SEC(".maps");

/* pool slot -> what its windows hand out; written by userspace only */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_BOARDS);
	__type(key, __u32);
	__type(value, struct picks);
} windows SEC(".maps");

/* connection -> pick, until it is accepted. LRU: a flood of SYNs evicts picks
 * of others, which userspace then makes itself; it can't fill the map.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_PICKS);
	__type(key, struct tuple);
	__type(value, struct pick);
} remembered SEC(".maps");

/* Connections that have ended lately, written by userspace: the slot is the low
 * bits of the connection's mix, the value its upper half and, below, the time in
 * units of 2^20 ns. A later one in the same slot takes its place.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FAREWELLS);
	__type(key, __u32);
	__type(value, __u64);
} farewells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DISPATCH_OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} dispatch_counts SEC(".maps");
