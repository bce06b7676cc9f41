// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* What is taken out of a SYN, so that both legs of a session get along without. */
#include "forward_rewrite.h"

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

/* One option, for bpf_loop: timestamps become padding. */
static long blank_option(__u32 i, struct walk **ctx)
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
		for (n = 0; n < 10; n++)
			*option_at(w, at + n) = 1;
		w->found = true;
	}
	w->at = at + size;
	return 0;
}

/* False: there are none in it, or it is as it was. */
static __always_inline bool take_out_timestamps(struct __sk_buff *skb, __u32 off, __u64 *sum)
{
	struct tcphdr *th = packet_at(skb, off);
	struct walk *w;
	__u64 options = 0;
	__u32 length;

	if ((void *)(th + 1) > packet_end(skb) || th->doff < 6)
		return false;
	length = th->doff * 4 - sizeof(*th);
	off += sizeof(*th);
	w = read_options(skb, off, length, &options);
	if (!w)
		return false;
	w->found = false;
	bpf_loop(MOST_OPTIONS, blank_option, &w, 0);
	if (!w->found || !write_options(skb, off, length, w, &options))
		return false;
	*sum += options;
	return true;
}
