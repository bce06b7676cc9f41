// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

#include "picks.h"

#define MAX_PICKS 65536
#define ENDED_PLACES 32768 /* a power of two */

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

/* connection -> pick, until it is accepted. LRU: a flood of SYNs evicts picks
 * of others, which userspace then makes itself; it can't fill the map.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_PICKS);
	__type(key, struct tuple);
	__type(value, struct pick);
} remembered SEC(".maps");

/* Connections that have ended lately, written by userspace: the place is the low
 * bits of the connection's mix, the value its upper half and, below, the time in
 * units of 2^20 ns. A later one in the same place overwrites it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ENDED_PLACES);
	__type(key, __u32);
	__type(value, __u64);
} ended_lately SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DISPATCH_OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} dispatch_counts SEC(".maps");
