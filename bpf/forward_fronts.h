// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* Fronts whose sessions may be forwarded. ECN is taken out of a client's SYN to one,
 * as by a host that doesn't know it: both legs have to agree on it, and the backend's
 * doesn't have it. So are timestamps where a backend was found that has none.
 */
#include "forward_syn.h"

#define MAX_FRONTS 4096

/* A front's address; the wildcards are ::ffff:0.0.0.0 and ::. */
struct front_key {
	__u32 addr[4]; /* as in a flow's key */
	__be16 port;
	__u16 pad;
};

enum front_flags {
	FRONT = 1 << 0,
	FRONT_NO_TIMESTAMPS = 1 << 1,
};

/* -> enum front_flags. Kept by userspace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FRONTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct front_key);
	__type(value, __u32);
} forward_fronts SEC(".maps");

/* Of the address itself, else of its family's wildcard; 0: no front. */
static __always_inline __u32 front_flags(const struct packet *p)
{
	struct front_key key = {.port = p->key.dport};
	__u32 *flags;

	__builtin_memcpy(key.addr, p->key.daddr, sizeof(key.addr));
	flags = bpf_map_lookup_elem(&forward_fronts, &key);
	if (flags)
		return *flags;
	key.addr[0] = key.addr[1] = key.addr[2] = key.addr[3] = 0;
	if (p->v4)
		key.addr[2] = bpf_htonl(0xffff);
	flags = bpf_map_lookup_elem(&forward_fronts, &key);
	return flags ? *flags : 0;
}

/* A packet that is no flow's. A SYN is a client's, or a stranger's. */
static __always_inline int pass_up(struct __sk_buff *skb, const struct packet *p)
{
	__u32 flags, off = tcp_at(p);
	__u64 sum = 0;

	if (p->odd || (p->flags & (SYN | ACK)) != SYN)
		return TCX_NEXT;
	flags = front_flags(p);
	if (!flags)
		return TCX_NEXT;
	if (take_out_ecn(skb, off, &sum))
		COUNT(forward_counts, FORWARD_ECN);
	if (flags & FRONT_NO_TIMESTAMPS && take_out_timestamps(skb, off, &sum))
		COUNT(forward_counts, FORWARD_PLAIN);
	if (sum)
		bpf_l4_csum_replace(skb, off + offsetof(struct tcphdr, check), 0, fold32(sum), 0);
	return TCX_NEXT;
}
