// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* Errors of ICMP about packets that were sent on: a path's MTU, an address that can't
 * be reached. They come to the host, which was the sender; the side that sent the
 * quoted packet is to have them, as one about its own packet. All of it is rare, so
 * that helpers may do it, which keep a device's sum of the packet right.
 */
#include "forward_numbers.h"
#include "forward_rewrite.h"

/* What is there of a TCP header in each quote (RFC 792), and what may be. */
struct quoted_tcp {
	__be16 sport;
	__be16 dport;
	__be32 seq;
};

#define QUOTED_ACK 8
#define QUOTED_CHECK 16

struct icmp_head {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 rest;
};

struct icmp_v4 {
	struct iphdr ip;
	struct icmp_head icmp;
	struct iphdr quoted;
	struct quoted_tcp tcp;
};

struct icmp_v6 {
	struct ipv6hdr ip;
	struct icmp_head icmp;
	struct ipv6hdr quoted;
	struct quoted_tcp tcp;
};

#define MOST_OF_ERROR sizeof(struct icmp_v6)

/* The headers of one, of which the stack has no room for so many bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, MOST_OF_ERROR);
} errors SEC(".maps");

static __always_inline void *scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&errors, &zero);
}

/* Of what ICMP says: the errors; anything else is the host's. */
static __always_inline bool is_error(bool v4, __u8 type)
{
	if (v4)
		return type == 3 || type == 11; /* unreachable, too many hops */
	return type >= 1 && type <= 3;          /* these, and too big */
}

/* A quote, and whose. */
struct quote {
	struct flow_key key; /* of the packets that come from where the quoted one went */
	const struct flow_side
		*back; /* those of that side: whoever sent the quoted one gets them */
	const struct flow_side *there;
	__u32 seq;
	__u64 sum;     /* what its changes add to ICMP's checksum */
	__u64 tcp_sum; /* and to its own TCP's */
};

enum { NOT_OURS, FORGED, OURS };

/* Whether a quote is of a packet that we have sent on and that is under way still;
 * an error about another one is nobody's word (tcp_v4_err() in net/ipv4/tcp_ipv4.c).
 */
static __always_inline __u32 whose(struct quote *q)
{
	struct flow_ref *ref = bpf_map_lookup_elem(&flow_keys, &q->key);
	struct flow_record *rec;
	const struct flow_side *s, *o;
	__u32 state, una;

	if (!ref)
		return NOT_OURS;
	rec = bpf_map_lookup_elem(&records, &ref->slot);
	if (!rec || (rule_same && !is_of(&q->key, rec, ref->side)))
		return NOT_OURS;
	state = *(volatile __u32 *)&rec->state;
	if (state != FORWARDED && state != ENDED)
		return NOT_OURS;
	o = &rec->side[ref->side & 1];
	s = &rec->side[!(ref->side & 1)];
	q->seq -= s->seq_add;
	una = (__u32) * (volatile __u64 *)&o->acked + o->ack_add;
	if (after(una, q->seq) || after(q->seq, *(volatile __u32 *)&s->next))
		return FORGED;
	q->back = o;
	q->there = s;
	return OURS;
}

static __always_inline void turn(struct quote *q, const struct quoted_tcp *tcp)
{
	q->key.sport = tcp->dport;
	q->key.dport = tcp->sport;
	q->seq = bpf_ntohl(tcp->seq);
}

/* What a word that changes adds to both checksums. */
static __always_inline void both(struct quote *q, __u32 was, __u32 is)
{
	differ(&q->sum, was, is);
	differ(&q->tcp_sum, was, is);
}

/* Ports, numbers and checksum of the quoted header at off, of which have bytes are
 * there. Its addresses are in the sums already.
 */
static __always_inline bool untranslate(struct __sk_buff *skb, struct quote *q,
                                        struct quoted_tcp *tcp, __u32 off, __u32 have)
{
	__be32 was, is, ports[2];
	__sum16 check, sum;

	__builtin_memcpy(&ports[0], tcp, sizeof(was));
	both(q, tcp->seq, bpf_htonl(q->seq));
	tcp->sport = q->back->dport;
	tcp->dport = q->back->sport;
	tcp->seq = bpf_htonl(q->seq);
	__builtin_memcpy(&ports[1], tcp, sizeof(was));
	both(q, ports[0], ports[1]);
	if (bpf_skb_store_bytes(skb, off, tcp, sizeof(*tcp), BPF_F_RECOMPUTE_CSUM))
		return false;
	if (have >= QUOTED_ACK + sizeof(was)) {
		if (bpf_skb_load_bytes(skb, off + QUOTED_ACK, &was, sizeof(was)))
			return false;
		is = bpf_htonl(bpf_ntohl(was) - q->there->ack_add);
		both(q, was, is);
		if (bpf_skb_store_bytes(skb, off + QUOTED_ACK, &is, sizeof(is),
		                        BPF_F_RECOMPUTE_CSUM))
			return false;
	}
	if (have < QUOTED_CHECK + sizeof(check))
		return true;
	if (bpf_skb_load_bytes(skb, off + QUOTED_CHECK, &check, sizeof(check)))
		return false;
	sum = ~fold16((__u16)~check + fold16(fold32(q->tcp_sum)));
	q->sum += (__u16)~check;
	q->sum += sum;
	return !bpf_skb_store_bytes(skb, off + QUOTED_CHECK, &sum, sizeof(sum),
	                            BPF_F_RECOMPUTE_CSUM);
}

static __always_inline __sum16 summed(__sum16 check, __u64 sum)
{
	return ~fold16((__u16)~check + fold16(fold32(sum)));
}

static __always_inline int send_error(struct __sk_buff *skb, const struct quote *q)
{
	if (!untag(skb))
		return drop(FORWARD_ODD);
	COUNT(forward_counts, FORWARD_ICMP);
	return bpf_redirect_neigh(q->back->ifindex, NULL, 0, 0);
}

static __noinline int forward_icmp_v4(struct __sk_buff *skb)
{
	const __u32 off = L3 + offsetof(struct icmp_v4, tcp);
	struct icmp_v4 *h = scratch();
	struct quote q = {};
	__u32 total, whom, hops;

	if (!h || bpf_skb_load_bytes(skb, L3, h, sizeof(*h)))
		return TCX_NEXT;
	total = bpf_ntohs(h->ip.tot_len);
	if (h->ip.ihl != 5 || !is_error(true, h->icmp.type) || total < sizeof(*h) ||
	    L3 + total > skb->len || h->ip.frag_off & bpf_htons(IP_FRAGMENT))
		return TCX_NEXT;
	if (h->quoted.version != 4 || h->quoted.ihl != 5 || h->quoted.protocol != IPPROTO_TCP ||
	    h->quoted.frag_off & bpf_htons(0x1fff) || h->quoted.saddr != h->ip.daddr)
		return TCX_NEXT;
	key_v4(&q.key, h->quoted.daddr, h->quoted.saddr);
	turn(&q, &h->tcp);
	whom = whose(&q);
	if (whom != OURS)
		return whom == FORGED ? drop(FORWARD_UNSURE) : TCX_NEXT;
	if (h->ip.ttl <= 1)
		return drop(FORWARD_TTL);

	differ(&q.tcp_sum, h->quoted.saddr, q.back->daddr[3]);
	differ(&q.tcp_sum, h->quoted.daddr, q.back->saddr[3]);
	h->quoted.saddr = q.back->daddr[3];
	h->quoted.daddr = q.back->saddr[3];
	/* The quoted header's own checksum takes up what its addresses add. */
	h->quoted.check = summed(h->quoted.check, q.tcp_sum);
	if (!untranslate(skb, &q, &h->tcp, off, total - offsetof(struct icmp_v4, tcp)))
		return drop(FORWARD_ODD);
	h->icmp.check = summed(h->icmp.check, q.sum);

	q.sum = 0;
	hops = h->ip.ttl;
	differ(&q.sum, h->ip.saddr, q.back->saddr[3]);
	differ(&q.sum, h->ip.daddr, q.back->daddr[3]);
	differ(&q.sum, bpf_htonl(hops << 24), bpf_htonl((hops - 1) << 24));
	h->ip.saddr = q.back->saddr[3];
	h->ip.daddr = q.back->daddr[3];
	h->ip.ttl = hops - 1;
	h->ip.check = summed(h->ip.check, q.sum);
	if (bpf_skb_store_bytes(skb, L3, h, offsetof(struct icmp_v4, tcp), BPF_F_RECOMPUTE_CSUM))
		return drop(FORWARD_ODD);
	return send_error(skb, &q);
}

/* New addresses of an IPv6 header. */
static __always_inline void readdress(struct ipv6hdr *ip, const __u32 saddr[4],
                                      const __u32 daddr[4], __u64 *sum)
{
	int i;

	for (i = 0; i < 4; i++) {
		differ(sum, ip->saddr.s6_addr32[i], saddr[i]);
		differ(sum, ip->daddr.s6_addr32[i], daddr[i]);
		ip->saddr.s6_addr32[i] = saddr[i];
		ip->daddr.s6_addr32[i] = daddr[i];
	}
}

static __always_inline bool same_address(const struct in6_addr *a, const struct in6_addr *b)
{
	return a->s6_addr32[0] == b->s6_addr32[0] && a->s6_addr32[1] == b->s6_addr32[1] &&
	       a->s6_addr32[2] == b->s6_addr32[2] && a->s6_addr32[3] == b->s6_addr32[3];
}

static __noinline int forward_icmp_v6(struct __sk_buff *skb)
{
	const __u32 off = L3 + offsetof(struct icmp_v6, tcp);
	struct icmp_v6 *h = scratch();
	struct quote q = {};
	__u32 total, whom;

	if (!h || bpf_skb_load_bytes(skb, L3, h, sizeof(*h)))
		return TCX_NEXT;
	total = sizeof(h->ip) + bpf_ntohs(h->ip.payload_len);
	if (!is_error(false, h->icmp.type) || total < sizeof(*h) || L3 + total > skb->len)
		return TCX_NEXT;
	if (h->quoted.version != 6 || h->quoted.nexthdr != IPPROTO_TCP ||
	    !same_address(&h->quoted.saddr, &h->ip.daddr))
		return TCX_NEXT;
	__builtin_memcpy(q.key.saddr, &h->quoted.daddr, sizeof(q.key.saddr));
	__builtin_memcpy(q.key.daddr, &h->quoted.saddr, sizeof(q.key.daddr));
	turn(&q, &h->tcp);
	whom = whose(&q);
	if (whom != OURS)
		return whom == FORGED ? drop(FORWARD_UNSURE) : TCX_NEXT;
	if (h->ip.hop_limit <= 1)
		return drop(FORWARD_TTL);

	readdress(&h->quoted, q.back->daddr, q.back->saddr, &q.tcp_sum);
	q.sum = fold32(q.tcp_sum);
	if (!untranslate(skb, &q, &h->tcp, off, total - offsetof(struct icmp_v6, tcp)))
		return drop(FORWARD_ODD);
	h->ip.hop_limit--;
	readdress(&h->ip, q.back->saddr, q.back->daddr, &q.sum);
	h->icmp.check = summed(h->icmp.check, q.sum);
	if (bpf_skb_store_bytes(skb, L3, h, offsetof(struct icmp_v6, tcp), BPF_F_RECOMPUTE_CSUM))
		return drop(FORWARD_ODD);
	return send_error(skb, &q);
}
