// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* Fronts whose sessions may be forwarded. ECN is taken out of a client's SYN to one,
 * as by a host that doesn't know it: both legs have to agree on it, and the backend's
 * doesn't have it.
 */
#include "forward_rewrite.h"

#define MAX_FRONTS 4096

/* A front's address; the wildcards are ::ffff:0.0.0.0 and ::. */
struct front_key {
	__u32 addr[4]; /* as in a flow's key */
	__be16 port;
	__u16 pad;
};

/* Kept by userspace; the value means nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FRONTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct front_key);
	__type(value, __u32);
} forward_fronts SEC(".maps");

/* The address itself, then its family's wildcard. */
static __always_inline bool is_front(const struct packet *p)
{
	struct front_key key = {.port = p->key.dport};

	__builtin_memcpy(key.addr, p->key.daddr, sizeof(key.addr));
	if (bpf_map_lookup_elem(&forward_fronts, &key))
		return true;
	key.addr[0] = key.addr[1] = key.addr[2] = key.addr[3] = 0;
	if (p->v4)
		key.addr[2] = bpf_htonl(0xffff);
	return bpf_map_lookup_elem(&forward_fronts, &key);
}

/* Takes ECN out of the SYN whose TCP header is at off: ECE, CWR and, of Accurate ECN
 * (RFC 9768), AE. False: there is none in it.
 */
static __always_inline bool take_out_ecn(struct __sk_buff *skb, __u32 off, __u64 *sum)
{
	struct tcphdr *th = packet_at(skb, off);
	__u8 *bytes = (void *)th;
	__be32 *word, was;

	if ((void *)(th + 1) > packet_end(skb))
		return false;
	if (!(bytes[12] & AE) && !(bytes[13] & (ECE | CWR)))
		return false;
	word = (void *)(bytes + 12);
	was = *word;
	bytes[12] &= ~AE;
	bytes[13] &= ~(ECE | CWR);
	differ(sum, was, *word);
	return true;
}

/* A packet that is no flow's. A SYN is a client's, or a stranger's. */
static __always_inline int pass_up(struct __sk_buff *skb, const struct packet *p)
{
	__u64 sum = 0;

	if (p->odd || (p->flags & (SYN | ACK)) != SYN || !is_front(p) ||
	    !take_out_ecn(skb, tcp_at(p), &sum))
		return TCX_NEXT;
	bpf_l4_csum_replace(skb, tcp_at(p) + offsetof(struct tcphdr, check), 0, fold32(sum), 0);
	COUNT(forward_counts, FORWARD_ECN);
	return TCX_NEXT;
}
