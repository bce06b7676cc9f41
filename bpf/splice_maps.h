// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

#include "common.h"

#define DEFAULT_FLOWS 65536
#define EVENTS_BYTES (256 * 1024)

/* One direction of a flow. The index is 2*flow+side: side 0 holds the bytes
 * read from the client, side 1 those from the backend; its peer is index^1.
 * Runs of one socket's verdict are serialised by its socket lock, so the
 * program's words need no atomics. One direction, one cache line.
 */
struct direction {
	__u64 redirected; /* program: bytes moved by the kernel */
	__u64 passed;     /* program: bytes left to userspace */
	__u64 forwarded;  /* userspace, after write() returned: bytes it has moved */
	__u64 last_ns;    /* program: its last run, CLOCK_MONOTONIC */
	__u32 base_seq;   /* program: target's write_seq with nothing moved */
	__u32 flags;      /* program */
	__u32 mark;       /* userspace: bytes that may wait unsent in the target */
	__u32 hold;       /* userspace: not 0: pass everything */
	__u32 runs;       /* program: runs with bytes */
	__u32 queued;     /* program: buffers redirected since the target's queue was last empty */
	__u32 over;       /* program: passed because the target had enough */
	__u32 next_seq;   /* program: sequence number of the first byte not had yet */
};

/* What flags says. */
#define BASE_KNOWN 1u
#define SEQ_KNOWN 2u
#define BROKEN 4u /* bytes are lost: the session has to be reset */

/* Buffers that may wait in a target's queue: one byte takes a kilobyte there. */
#define MOST_QUEUED 1024

/* Bytes that may wait for userspace beyond what the socket's receive buffer holds:
 * more come only while bytes that are passed queue up uncharged.
 */
#define MOST_UNREAD (64ull << 20)

enum splice_outcome {
	REDIRECTED,
	PASSED_OVER,      /* over the mark, or too many buffers */
	PASSED_BEHIND,    /* userspace hasn't forwarded all that was passed */
	PASSED_HOLD,      /* userspace asked for it */
	PASSED_NO_TARGET, /* the peer isn't in the map */
	PASSED_NO_FLOW,   /* not a flow of ours, or not any more */
	DROPPED_FIN,
	REDIRECT_FAILED, /* bytes lost: the session has to be reset */
	EVENT_LOST,      /* an announcement found no room; the sweep finds it */
	TRIMMED,         /* began with bytes that had come before */
	ORDER_LOST,      /* couldn't be trimmed, or a gap: reset as well */
	DROPPED_UNREAD,  /* userspace left too much unread: reset as well */
	SPLICE_OUTCOMES,
};

/* Sockets that run the verdict. Sized by the loader: 2 * flows. Written as
 * descriptors; with values of 64 bits, reading gives the cookies.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2 * DEFAULT_FLOWS);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

/* Sockets to redirect to: the same ones, in a map of their own, so that both
 * are targets before either runs the verdict.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2 * DEFAULT_FLOWS);
	__type(key, __u32);
	__type(value, __u64);
} targets SEC(".maps");

/* socket cookie -> index. Cookies aren't reused, ports and addresses are. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * DEFAULT_FLOWS);
	__type(key, __u64);
	__type(value, __u32);
} indices SEC(".maps");

/* index -> direction */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * DEFAULT_FLOWS);
	__type(key, __u32);
	__type(value, struct direction);
} directions SEC(".maps");

/* Indices of directions that have begun to pass. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENTS_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SPLICE_OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} splice_counts SEC(".maps");
