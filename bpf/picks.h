// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* The windows of coming picks, for whichever program hands them out: userspace
 * decides the order, a program only indexes it.
 */
#include "common.h"

#define MAX_BOARDS 1024
#define WINDOW 1024 /* a power of two */
#define MAX_LISTENERS 4096

/* A front address. IPv4 is written ::ffff:a.b.c.d, so that there is one map;
 * the wildcards are ::ffff:0.0.0.0 and ::.
 */
struct listener_key {
	__u32 addr[4]; /* network order */
	__u16 port;    /* host order */
	__u16 pad;
};

/* One of a pool's two runs of coming picks. `counter` is the next ticket; a
 * closed window's is beyond any end. From `until` on (CLOCK_MONOTONIC, ns) it
 * hands out nothing: the order is another one then.
 */
struct window {
	__u64 counter;
	__u64 end;
	__u64 until;
};

struct board {
	__u32 live; /* index of the window that hands out, 0 or 1 */
	__u32 pad;
	struct window window[2];
	__u64 spare; /* one board, one cache line */
};

/* Backend numbers in the order of the picks. */
struct picks {
	__u32 id[2][WINDOW];
};

/* listen address -> number of its pool's board */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_LISTENERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct listener_key);
	__type(value, __u32);
} listeners SEC(".maps");

/* number -> a pool's windows; written by both sides */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_BOARDS);
	__type(key, __u32);
	__type(value, struct board);
} boards SEC(".maps");

/* number -> what its windows hand out; written by userspace only */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_BOARDS);
	__type(key, __u32);
	__type(value, struct picks);
} windows SEC(".maps");

static __always_inline void put_v4(__u32 to[4], __u32 addr)
{
	to[0] = to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = addr;
}

/* The board of the address itself, then of its family's wildcard. */
static __always_inline __u32 *find_listener(const __u32 server[4], __u16 port, bool v4)
{
	struct listener_key key = {.port = port};
	__u32 *board;

	__builtin_memcpy(key.addr, server, sizeof(key.addr));
	board = bpf_map_lookup_elem(&listeners, &key);
	if (board)
		return board;
	__builtin_memset(key.addr, 0, sizeof(key.addr));
	if (v4)
		put_v4(key.addr, 0);
	return bpf_map_lookup_elem(&listeners, &key);
}

/* Takes the pool's next ticket. False: closed, at its end, or out of its time,
 * where no ticket is taken.
 */
static __always_inline bool take(__u32 number, __u64 now, __u32 *backend)
{
	struct board *board = bpf_map_lookup_elem(&boards, &number);
	struct picks *picks = bpf_map_lookup_elem(&windows, &number);
	__u32 live;
	__u64 ticket;

	if (!board || !picks)
		return false; /* not reached: userspace writes only numbers in range */
	live = *(volatile __u32 *)&board->live & 1;
	if (now >= *(volatile __u64 *)&board->window[live].until)
		return false;
	ticket = __sync_fetch_and_add(&board->window[live].counter, 1);
	if (ticket >= *(volatile __u64 *)&board->window[live].end)
		return false;
	*backend = picks->id[live][ticket & (WINDOW - 1)];
	return true;
}
