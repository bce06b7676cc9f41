// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* Makes a packet of one side one that the other side expects, and sends it on. */
#include "forward_packet.h"

#include <stddef.h>

/* What a change adds to a one's complement sum; both in the packet's byte order.
 * Words of 32 bits at places that are a multiple of four.
 */
static __always_inline void differ(__u64 *sum, __u32 was, __u32 is)
{
	*sum += (__u32)~was;
	*sum += is;
}

static __always_inline __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

static __always_inline __u16 fold16(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* An option of a TCP header as a place in it, and what is to become of its numbers. */
struct walk {
	__u8 bytes[80]; /* more than there are, so that any place below 64 may be tried */
	__u32 length;
	__u32 at;
	__u32 ack_add, tsval_add, tsecr_add, tsecr_min;
	bool echoes; /* it acknowledges, so that a timestamp's echo means something */
	bool found;  /* timestamps, where they are taken out */
};

static __always_inline __u32 get32(const __u8 *b)
{
	return (__u32)b[0] << 24 | (__u32)b[1] << 16 | (__u32)b[2] << 8 | b[3];
}

static __always_inline void put32(__u8 *b, __u32 v)
{
	b[0] = v >> 24;
	b[1] = v >> 16;
	b[2] = v >> 8;
	b[3] = v;
}

/* A timestamp's echo: one from before the cut belongs to the last that was seen. */
static __always_inline __u32 echo(__u32 tsecr, __u32 least, __u32 add)
{
	if ((__s32)(tsecr - least) < 0)
		tsecr = least;
	return tsecr + add;
}

#define MOST_AT(size) (MOST_OPTIONS - (size))

/* The mask says to the verifier what the callers' comparisons say to us. */
static __always_inline __u8 *option_at(struct walk *w, __u32 at)
{
	at &= 63;
	asm volatile("" : "+r"(at));
	return &w->bytes[at];
}

/* One option, for bpf_loop: 1 ends it. A loop of our own over options has the
 * verifier follow each of their combinations.
 */
static long translate_option(__u32 i, struct walk **ctx)
{
	struct walk *w = *ctx;
	__u32 at = w->at, kind, size, n;

	(void)i;
	if (at >= w->length || at > MOST_AT(2))
		return 1;
	kind = *option_at(w, at);
	if (kind == 0)
		return 1;
	if (kind == 1) {
		w->at = at + 1;
		return 0;
	}
	size = *option_at(w, at + 1);
	if (size < 2 || at + size > w->length)
		return 1;
	if (kind == 8 && size == 10 && at <= MOST_AT(10)) {
		put32(option_at(w, at + 2), get32(option_at(w, at + 2)) + w->tsval_add);
		n = get32(option_at(w, at + 6));
		put32(option_at(w, at + 6), w->echoes ? echo(n, w->tsecr_min, w->tsecr_add) : 0);
	}
	if (kind == 5) {
		for (n = 0; n < 8; n++) { /* edges of four blocks at most */
			__u32 edge = at + 2 + n * 4;

			if (2 + (n + 1) * 4 > size || edge > MOST_AT(4))
				break;
			put32(option_at(w, edge), get32(option_at(w, edge)) + w->ack_add);
		}
	}
	w->at = at + size;
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk);
} walks SEC(".maps");

/* Whether this is a length of options, in comparisons that say as much to the verifier:
 * the compiler would make one of both, or ask for zero, which says nothing before 6.8.
 */
static __always_inline bool bounded(__u32 *length)
{
	__u32 n = *length & 60;

	asm volatile("" : "+r"(n));
	if (n < 4)
		return false;
	asm volatile("" : "+r"(n));
	if (n > MOST_OPTIONS)
		return false;
	asm volatile("" : "+r"(n));
	*length = n;
	return true;
}

/* The options at off as a place in them, and their taking from a sum. */
static __always_inline struct walk *read_options(struct __sk_buff *skb, __u32 off, __u32 length,
                                                 __u64 *sum)
{
	__u32 zero = 0;
	struct walk *w = bpf_map_lookup_elem(&walks, &zero);
	__s64 was;

	if (!w || !bounded(&length) || bpf_skb_load_bytes(skb, off, w->bytes, length))
		return NULL;
	was = bpf_csum_diff((__be32 *)w->bytes, length, NULL, 0, 0);
	if (was < 0)
		return NULL;
	*sum += (__u32)was;
	w->length = length;
	w->at = 0;
	return w;
}

/* Puts them back, and adds them to the sum. */
static __always_inline bool write_options(struct __sk_buff *skb, __u32 off, __u32 length,
                                          struct walk *w, __u64 *sum)
{
	__s64 is;

	if (!bounded(&length))
		return false;
	is = bpf_csum_diff(NULL, 0, (__be32 *)w->bytes, length, 0);
	if (is < 0 || bpf_skb_store_bytes(skb, off, w->bytes, length, 0))
		return false;
	*sum += (__u32)is;
	return true;
}

/* Options in any order; adds to sum what changes. */
static __always_inline bool translate_options(struct __sk_buff *skb, const struct packet *p,
                                              const struct flow_side *s, __u64 *sum)
{
	__u32 length = p->options, off = tcp_at(p) + sizeof(struct tcphdr);
	struct walk *w = read_options(skb, off, length, sum);

	if (!w)
		return false;
	w->ack_add = s->ack_add;
	w->tsval_add = s->tsval_add;
	w->tsecr_add = s->tsecr_add;
	w->tsecr_min = s->tsecr_min;
	w->echoes = p->flags & ACK;
	bpf_loop(MOST_OPTIONS, translate_option, &w, 0);
	return write_options(skb, off, length, w, sum);
}

/* Only the timestamps, where they mostly are: behind two bytes of padding. */
static __always_inline bool plain_timestamps(const struct tcphdr *th, const void *end)
{
	const __be32 *o = (const void *)(th + 1);

	return (void *)(o + 3) <= end && o[0] == bpf_htonl(0x0101080a);
}

/* A window in the unit that the other side takes it for; never more, and none that
 * is open is closed.
 */
static __always_inline __u16 translate_window(const struct flow_side *s, __u16 window)
{
	__u32 w = ((__u32)window << s->scale_in) >> s->scale_out;

	if (w > 65535)
		w = 65535;
	return rule_open && window && !w ? 1 : w;
}

/* The TCP header but for its ports' checksum; false: it can't be. */
static __always_inline bool rewrite_tcp(struct __sk_buff *skb, const struct packet *p,
                                        const struct flow_side *s, __u64 *sum)
{
	struct tcphdr *th = packet_at(skb, tcp_at(p));
	__be32 *word = (void *)th;
	bool timestamps = false;
	__u32 was;

	if ((void *)(th + 1) > packet_end(skb))
		return false;
	was = word[0];
	th->source = s->sport;
	th->dest = s->dport;
	differ(sum, was, word[0]);
	was = word[1];
	word[1] = bpf_htonl(p->seq + s->seq_add);
	differ(sum, was, word[1]);
	was = word[3];
	if (p->flags & ACK) {
		__u32 ack = word[2];

		word[2] = bpf_htonl(p->ack + s->ack_add);
		differ(sum, ack, word[2]);
	}
	/* An urgent byte is one like any other: it stays in its place. */
	((__u8 *)th)[13] = p->flags & ~URG;
	th->window = bpf_htons(p->flags & SYN ? p->window : translate_window(s, p->window));
	differ(sum, was, word[3]);
	if (th->urg_ptr) {
		*sum += (__u16)~th->urg_ptr;
		th->urg_ptr = 0;
	}
	if (p->options == 12 && plain_timestamps(th, packet_end(skb))) {
		__be32 *o = (void *)(th + 1);

		if ((void *)(o + 3) > packet_end(skb))
			return false;
		was = o[1];
		o[1] = bpf_htonl(bpf_ntohl(was) + s->tsval_add);
		differ(sum, was, o[1]);
		was = o[2];
		o[2] = bpf_htonl(p->flags & ACK ? echo(bpf_ntohl(was), s->tsecr_min, s->tsecr_add)
		                                : 0);
		differ(sum, was, o[2]);
		timestamps = true;
	}
	return timestamps || !p->options || translate_options(skb, p, s, sum);
}

/* The network header. False: it has no hops left. */
static __always_inline bool rewrite_ip(struct __sk_buff *skb, const struct packet *p,
                                       const struct flow_side *s)
{
	if (p->v4) {
		struct iphdr *ip = packet_at(skb, L3);
		__be16 *ttl = (void *)&ip->ttl; /* and the protocol */
		__u32 sum;

		if ((void *)(ip + 1) > packet_end(skb) || ip->ttl <= 1)
			return false;
		sum = (__u16)~ip->check;
		sum += (__u16) ~*ttl;
		ip->ttl--;
		sum += *ttl;
		sum += fold16(s->addr_diff);
		ip->check = ~fold16(sum);
		ip->saddr = s->saddr[3];
		ip->daddr = s->daddr[3];
	} else {
		struct ipv6hdr *ip = packet_at(skb, L3);
		__u64 sum = s->addr_diff;
		__be32 *hops = (void *)&ip->payload_len; /* and what is beside them */
		__u32 was;

		if ((void *)(ip + 1) > packet_end(skb) || ip->hop_limit <= 1)
			return false;
		was = *hops;
		ip->hop_limit--;
		differ(&sum, was, *hops);
		__builtin_memcpy(&ip->saddr, s->saddr, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, s->daddr, sizeof(ip->daddr));
		/* A sum of the whole packet, if a device made one, has these too: no
		 * checksum of the header makes up for them, as IPv4's does.
		 */
		bpf_csum_update(skb, fold32(sum));
	}
	return true;
}

static __always_inline int drop(__u32 why)
{
	COUNT(forward_counts, why);
	return DROP;
}

static __always_inline int send(struct __sk_buff *skb, const struct packet *p,
                                const struct flow_side *s)
{
	__u32 check = tcp_at(p) + offsetof(struct tcphdr, check);
	__u64 sum = 0;

	if (!untag(skb))
		return drop(FORWARD_ODD);
	if (!rewrite_ip(skb, p, s))
		return drop(FORWARD_TTL);
	if (!rewrite_tcp(skb, p, s, &sum))
		return drop(FORWARD_ODD);
	if (bpf_l4_csum_replace(skb, check, 0, fold32(sum), 0) ||
	    bpf_l4_csum_replace(skb, check, 0, s->addr_diff, BPF_F_PSEUDO_HDR))
		return drop(FORWARD_ODD);
	COUNT(forward_counts, FORWARD_SENT);
	return bpf_redirect_neigh(s->ifindex, NULL, 0, 0);
}
