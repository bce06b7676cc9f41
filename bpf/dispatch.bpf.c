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

static __always_inline void put_v4(__u8 to[16], __u32 addr)
{
	__u32 words[4] = {0, 0, bpf_htonl(0xffff), addr};

	__builtin_memcpy(to, words, 16);
}

static __always_inline void put_v6(__u8 to[16], __u32 w0, __u32 w1, __u32 w2, __u32 w3)
{
	__u32 words[4] = {w0, w1, w2, w3};

	__builtin_memcpy(to, words, 16);
}

/* The address itself, then the wildcard of its family. */
static __always_inline __u32 *find_listener(struct bpf_sk_lookup *ctx, const __u8 server[16])
{
	struct listener_key key = {.port = ctx->local_port};
	__u32 *slot;

	__builtin_memcpy(key.addr, server, 16);
	slot = bpf_map_lookup_elem(&listeners, &key);
	if (slot)
		return slot;
	if (ctx->family == AF_INET)
		put_v4(key.addr, 0);
	else
		put_v6(key.addr, 0, 0, 0, 0);
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

SEC("sk_lookup")
int dispatch(struct bpf_sk_lookup *ctx)
{
	struct tuple tuple = {};
	struct pick pick = {}, *old;
	__u32 *slot;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	if (ctx->family == AF_INET) {
		put_v4(tuple.client, ctx->remote_ip4);
		put_v4(tuple.server, ctx->local_ip4);
	} else if (ctx->family == AF_INET6) {
		put_v6(tuple.client, ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2],
		       ctx->remote_ip6[3]);
		put_v6(tuple.server, ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2],
		       ctx->local_ip6[3]);
	} else {
		return SK_PASS;
	}
	slot = find_listener(ctx, tuple.server);
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
