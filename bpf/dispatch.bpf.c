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
const volatile __u32 stray_units = 4000;

/* Loads from the context have to be at constant offsets from its start; the
 * compiler would otherwise merge those of the two families into one.
 */
#define CTX(field) (*(volatile typeof(ctx->field) *)&ctx->field)

/* As in loader/ended.go. */
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
	__u64 h = mix(tuple), *entry, ended;
	__u32 place = h & (ENDED_PLACES - 1);

	entry = bpf_map_lookup_elem(&ended_lately, &place);
	if (!entry)
		return false;
	ended = *(volatile __u64 *)entry;
	return ended >> 32 == h >> 32 && (__u32)(now >> 20) - (__u32)ended < stray_units;
}

SEC("sk_lookup")
int dispatch(struct bpf_sk_lookup *ctx)
{
	struct tuple tuple = {};
	struct pick pick = {}, *old;
	__u32 *board;

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
	board = find_listener(tuple.server, ctx->local_port, ctx->family == AF_INET);
	if (!board)
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
	if (!take(*board, pick.at, &pick.backend)) {
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
