// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* The host's own SYNs, on their way out: without the options that the client's leg
 * doesn't have. No socket option says so.
 */
#include "forward_syn.h"

#define MAX_PLAIN 65536

/* What is taken out of a SYN. */
enum plain_flags {
	PLAIN_TIMESTAMPS = 1 << 0,
	PLAIN_ECN = 1 << 1,
};

/* A connection of the host that is being made. */
struct syn_key {
	__u32 daddr[4]; /* as in a flow's key */
	__be16 sport;
	__be16 dport;
};

/* -> enum plain_flags. Filled by userspace before it connects, emptied after. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PLAIN);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct syn_key);
	__type(value, __u32);
} forward_plain SEC(".maps");

/* Where the TCP header of a SYN is; 0: of no other packet. The stack's own have their
 * headers in one piece, and nothing between them.
 */
static __always_inline __u32 find_syn(struct __sk_buff *skb, struct syn_key *key)
{
	struct tcphdr *th;
	__u32 off;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = packet_at(skb, L3);

		if ((void *)(ip + 1) > packet_end(skb) || ip->protocol != IPPROTO_TCP ||
		    ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_FRAGMENT))
			return 0;
		key->daddr[2] = bpf_htonl(0xffff);
		key->daddr[3] = ip->daddr;
		off = L3 + sizeof(*ip);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = packet_at(skb, L3);

		if ((void *)(ip + 1) > packet_end(skb) || ip->nexthdr != IPPROTO_TCP ||
		    ip->version != 6)
			return 0;
		__builtin_memcpy(key->daddr, &ip->daddr, sizeof(key->daddr));
		off = L3 + sizeof(*ip);
	} else {
		return 0;
	}
	th = packet_at(skb, off);
	if ((void *)(th + 1) > packet_end(skb) || !th->syn || th->ack)
		return 0;
	key->sport = th->source;
	key->dport = th->dest;
	return off;
}

/* Runs on what leaves by each device. Whatever it does, the packet goes on. */
SEC("tc")
int strip(struct __sk_buff *skb)
{
	struct syn_key key = {};
	__u32 off = find_syn(skb, &key), *what;
	__u64 sum = 0;

	if (!off)
		return TCX_NEXT;
	what = bpf_map_lookup_elem(&forward_plain, &key);
	if (!what)
		return TCX_NEXT;
	if (*what & PLAIN_ECN)
		take_out_ecn(skb, off, &sum);
	if (*what & PLAIN_TIMESTAMPS)
		take_out_timestamps(skb, off, &sum);
	bpf_l4_csum_replace(skb, off + offsetof(struct tcphdr, check), 0, fold32(sum), 0);
	COUNT(forward_counts, FORWARD_PLAIN);
	return TCX_NEXT;
}
