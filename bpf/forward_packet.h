// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* What a packet says, read once. */
#include "forward_maps.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#ifndef TCX_NEXT
#define TCX_NEXT (-1) /* clsact has the same number for the same: TC_ACT_UNSPEC */
#endif
#define DROP TC_ACT_SHOT

#define L3 ETH_HLEN
#define IP_FRAGMENT 0x3fff /* more of them, or an offset */
#define MOST_OPTIONS 40
#define EXTENSIONS 8 /* of an IPv6 packet that are looked behind */

enum {
	FIN = 1 << 0,
	SYN = 1 << 1,
	RST = 1 << 2,
	ACK = 1 << 4,
	URG = 1 << 5,
	ECE = 1 << 6,
	CWR = 1 << 7,
	AE = 1 << 0, /* in the byte before */
};

struct packet {
	struct flow_key key;
	__u32 l4;      /* offset of the TCP header: see tcp_at */
	__u32 options; /* bytes of its options */
	__u32 payload;
	__u32 seq;
	__u32 ack;
	__u16 window;
	__u8 flags;
	bool v4;
	bool icmp; /* of the packet's family; nothing else is known */
	bool odd;  /* nothing is known but the key: it can't be translated */
};

/* What the compiler knows of the offset is kept from it: the verifier follows one
 * pointer that is compared and used, not two that are the same number.
 */
static __always_inline void *packet_at(struct __sk_buff *skb, __u32 off)
{
	void *at = (void *)(long)skb->data + off;

	asm volatile("" : "+r"(at));
	return at;
}

static __always_inline void *packet_end(struct __sk_buff *skb)
{
	return (void *)(long)skb->data_end;
}

/* The offset of the TCP header of a packet that isn't odd, within bounds that the
 * verifier sees.
 */
static __always_inline __u32 tcp_at(const struct packet *p)
{
	return p->l4 & 127;
}

/* Has the first len bytes in one piece. A large frame's may not be. */
static __always_inline bool linear(struct __sk_buff *skb, __u32 len)
{
	if (packet_at(skb, len) <= packet_end(skb))
		return true;
	if (!rule_whole)
		return false;
	return !bpf_skb_pull_data(skb, len) && packet_at(skb, len) <= packet_end(skb);
}

static __always_inline void key_v4(struct flow_key *key, __be32 saddr, __be32 daddr)
{
	key->saddr[0] = key->saddr[1] = 0;
	key->saddr[2] = bpf_htonl(0xffff);
	key->saddr[3] = saddr;
	key->daddr[0] = key->daddr[1] = 0;
	key->daddr[2] = bpf_htonl(0xffff);
	key->daddr[3] = daddr;
}

/* The TCP header at p->l4, behind which total bytes of the packet end. */
static __always_inline bool read_tcp(struct __sk_buff *skb, struct packet *p, __u32 total)
{
	struct tcphdr *th;
	__u32 header;

	if (!linear(skb, p->l4 + sizeof(*th)))
		return false;
	th = packet_at(skb, p->l4);
	if ((void *)(th + 1) > packet_end(skb))
		return false;
	p->key.sport = th->source;
	p->key.dport = th->dest;
	p->seq = bpf_ntohl(th->seq);
	p->ack = bpf_ntohl(th->ack_seq);
	p->window = bpf_ntohs(th->window);
	p->flags = ((__u8 *)th)[13];
	header = th->doff * 4;
	if (header < sizeof(*th) || p->l4 + header > total || total > skb->len) {
		p->odd = true; /* malformed or truncated */
		return true;
	}
	p->options = header - sizeof(*th);
	p->payload = total - p->l4 - header;
	return true;
}

/* A header in front of TCP's that isn't worth translating: only the key. */
static __always_inline bool read_ports(struct __sk_buff *skb, struct packet *p)
{
	__be16 ports[2];

	p->odd = true;
	if (bpf_skb_load_bytes(skb, p->l4, ports, sizeof(ports)))
		return false;
	p->key.sport = ports[0];
	p->key.dport = ports[1];
	return true;
}

/* Where a packet ends whose length counts from an offset. Superpackets of more than
 * 64 KiB say 0.
 */
static __always_inline __u32 ends_at(struct __sk_buff *skb, __u32 from, __u32 length)
{
	return length || !skb->gso_size ? from + length : skb->len;
}

static __always_inline bool read_v4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr *ip;
	__u32 total;

	if (!linear(skb, L3 + sizeof(*ip)))
		return false;
	ip = packet_at(skb, L3);
	if ((void *)(ip + 1) > packet_end(skb) || ip->version != 4 || ip->ihl < 5)
		return false;
	p->v4 = true;
	if (ip->protocol != IPPROTO_TCP) {
		p->icmp = ip->protocol == IPPROTO_ICMP;
		return false;
	}
	key_v4(&p->key, ip->saddr, ip->daddr);
	p->l4 = L3 + ip->ihl * 4;
	if (ip->frag_off & bpf_htons(0x1fff))
		return false; /* no ports, so nobody's; its first one is dropped */
	if (ip->ihl != 5 || ip->frag_off & bpf_htons(IP_FRAGMENT))
		return read_ports(skb, p);
	total = ends_at(skb, L3, bpf_ntohs(ip->tot_len));
	p->l4 = L3 + sizeof(*ip);
	return read_tcp(skb, p, total);
}

/* The TCP header behind extension headers, in whatever number and order. */
static __always_inline bool read_extensions(struct __sk_buff *skb, struct packet *p, __u8 next)
{
	__u32 off = L3 + sizeof(struct ipv6hdr);
	__u8 head[4];
	int i;

	for (i = 0; i < EXTENSIONS; i++) {
		if (next == IPPROTO_TCP) {
			p->l4 = off;
			return read_ports(skb, p);
		}
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_AH)
			return false;
		if (bpf_skb_load_bytes(skb, off, head, sizeof(head)))
			return false;
		if (next == IPPROTO_FRAGMENT) {
			if (head[2] || head[3] & 0xf8)
				return false; /* not the first: no ports */
			off += 8;
		} else if (next == IPPROTO_AH) {
			off += (head[1] + 2) * 4;
		} else {
			off += (head[1] + 1) * 8;
		}
		next = head[0];
	}
	return false;
}

static __always_inline bool read_v6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr *ip;
	__u32 total;

	if (!linear(skb, L3 + sizeof(*ip)))
		return false;
	ip = packet_at(skb, L3);
	if ((void *)(ip + 1) > packet_end(skb) || ip->version != 6)
		return false;
	__builtin_memcpy(p->key.saddr, &ip->saddr, sizeof(p->key.saddr));
	__builtin_memcpy(p->key.daddr, &ip->daddr, sizeof(p->key.daddr));
	if (ip->nexthdr == IPPROTO_ICMPV6) {
		p->icmp = true;
		return false;
	}
	if (ip->nexthdr != IPPROTO_TCP)
		return read_extensions(skb, p, ip->nexthdr);
	p->l4 = L3 + sizeof(*ip);
	total = ends_at(skb, p->l4, bpf_ntohs(ip->payload_len));
	return read_tcp(skb, p, total);
}

/* Whether the record is that of the packet's flow. A key that is deleted may be another
 * flow's, with its number, before who has just looked it up has read that.
 */
static __always_inline bool is_of(const struct flow_key *key, const struct flow_record *rec,
                                  __u32 side)
{
	const struct flow_side *other = &rec->side[!(side & 1)];

	return key->sport == other->dport && key->dport == other->sport &&
	       key->saddr[3] == other->daddr[3] && key->daddr[3] == other->saddr[3] &&
	       key->saddr[2] == other->daddr[2] && key->daddr[2] == other->saddr[2] &&
	       key->saddr[1] == other->daddr[1] && key->daddr[1] == other->saddr[1] &&
	       key->saddr[0] == other->daddr[0] && key->daddr[0] == other->saddr[0];
}

#define VLAN_ID 0xfff /* of a tag */

/* Whether a packet is of a VLAN. A tag of VLAN 0 carries a priority only: the packet is
 * the device's own (__netif_receive_skb_core() in net/core/dev.c).
 */
static __always_inline bool other_vlan(struct __sk_buff *skb)
{
	return skb->vlan_present && (!rule_untag || (skb->vlan_tci & VLAN_ID));
}

/* Takes such a tag off: where the packet goes it means nothing. */
static __always_inline bool untag(struct __sk_buff *skb)
{
	return !skb->vlan_present || !bpf_skb_vlan_pop(skb);
}

/* False: not a TCP packet, or none that could be a flow's. */
static __always_inline bool read_packet(struct __sk_buff *skb, struct packet *p)
{
	if (other_vlan(skb))
		return false; /* its VLAN's device has it next */
	if (skb->pkt_type != PACKET_HOST)
		return false; /* another host's, on a device that listens to all */
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return read_v4(skb, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return read_v6(skb, p);
	return false;
}
