// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/* Picks the backend of a new connection at its SYN and remembers it under the
 * connection's addresses, for userspace to find at accept. It assigns no
 * socket: whatever happens here, the kernel's own look-up finds our listeners.
 */
#include "dispatch_maps.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6

/* How long a pick stands for retransmissions of its SYN. Tests shorten it. */
const volatile __u64 pick_life_ns = 60 * NS_PER_S;

/* How long after a connection's end its segments are known for strays. */
const volatile __u32 farewell_units = 4000;

/* Loads from the context have to be at constant offsets from its start; the
 * compiler would otherwise merge those of the two families into one.
 */
#define CTX(field) (*(volatile typeof(ctx->field) *)&ctx->field)

static __always_inline void put_v4(__u32 to[4], __u32 addr)
{
	to[0] = to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = addr;
}

/* The address itself, then the wildcard of its family. */
static __always_inline __u32 *find_listener(const __u32 server[4], __u16 port, bool v4)
{
	struct listener_key key = {.port = port};
	__u32 *slot;

	__builtin_memcpy(key.addr, server, sizeof(key.addr));
	slot = bpf_map_lookup_elem(&listeners, &key);
	if (slot)
		return slot;
	__builtin_memset(key.addr, 0, sizeof(key.addr));
	if (v4)
		put_v4(key.addr, 0);
	return bpf_map_lookup_elem(&listeners, &key);
}

/* Takes the pool's next ticket. False: closed, or at its end. */
static __always_inline bool take(__u32 slot, __u32 *backend)
{
	struct board *board = bpf_map_lookup_elem(&boards, &slot);
	struct picks *picks = bpf_map_lookup_elem(&windows, &slot);
	__u32 live;
	__u64 ticket;

	if (!board || !picks)
		return false; /* not reached: userspace writes only slots in range */
	live = *(volatile __u32 *)&board->live & 1;
	ticket = __sync_fetch_and_add(&board->window[live].counter, 1);
	if (ticket >= *(volatile __u64 *)&board->window[live].end)
		return false;
	*backend = picks->id[live][ticket & (WINDOW - 1)];
	return true;
}

/* As in loader/farewell.go. */
static __always_inline __u64 mix(const struct tuple *tuple)
{
	const __u32 *word = (const __u32 *)tuple;
	__u64 h = 0;
	__u32 i;

	for (i = 0; i < sizeof(*tuple) / sizeof(*word); i++) {
		h = (h ^ word[i]) * 0x9e3779b97f4a7c15ULL;
		h ^= h >> 32;
	}
	return h;
}

/* Whether the segment is one that was overtaken by the end of its connection,
 * or came after our reset. A new connection from the same port looks the same:
 * userspace picks for it at accept, from the same order.
 */
static __always_inline bool stray(const struct tuple *tuple, __u64 now)
{
	__u64 h = mix(tuple), *place, left;
	__u32 slot = h & (FAREWELLS - 1);

	place = bpf_map_lookup_elem(&farewells, &slot);
	if (!place)
		return false;
	left = *(volatile __u64 *)place;
	return left >> 32 == h >> 32 && (__u32)(now >> 20) - (__u32)left < farewell_units;
}

SEC("sk_lookup")
int dispatch(struct bpf_sk_lookup *ctx)
{
	struct tuple tuple = {};
	struct pick pick = {}, *old;
	__u32 *slot;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	if (ctx->family == AF_INET) {
		put_v4(tuple.client, CTX(remote_ip4));
		put_v4(tuple.server, CTX(local_ip4));
	} else if (ctx->family == AF_INET6) {
		tuple.client[0] = CTX(remote_ip6[0]);
		tuple.client[1] = CTX(remote_ip6[1]);
		tuple.client[2] = CTX(remote_ip6[2]);
		tuple.client[3] = CTX(remote_ip6[3]);
		tuple.server[0] = CTX(local_ip6[0]);
		tuple.server[1] = CTX(local_ip6[1]);
		tuple.server[2] = CTX(local_ip6[2]);
		tuple.server[3] = CTX(local_ip6[3]);
	} else {
		return SK_PASS;
	}
	slot = find_listener(tuple.server, ctx->local_port, ctx->family == AF_INET);
	if (!slot)
		return SK_PASS;

	tuple.client_port = ctx->remote_port;
	tuple.server_port = bpf_htons(ctx->local_port);
	pick.at = bpf_ktime_get_ns();
	old = bpf_map_lookup_elem(&remembered, &tuple);
	if (old && pick.at - old->at < pick_life_ns) {
		COUNT(dispatch_counts, REMEMBERED);
		return SK_PASS;
	}
	if (stray(&tuple, pick.at)) {
		COUNT(dispatch_counts, STRAY);
		return SK_PASS;
	}
	if (!take(*slot, &pick.backend)) {
		COUNT(dispatch_counts, EXHAUSTED);
		return SK_PASS;
	}
	if (bpf_map_update_elem(&remembered, &tuple, &pick, BPF_ANY))
		COUNT(dispatch_counts, NOT_STORED);
	else
		COUNT(dispatch_counts, PICKED);
	return SK_PASS;
}

/* The kernel compares this string; the file is also available under the GPL. */
char _license[] SEC("license") = "GPL";
