// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/* Forwards the packets of sessions that were handed over, below the host's stack. */
#include "forward_cut.h"
#include "forward_devices.h"
#include "forward_fronts.h"
#include "forward_icmp.h"
#include "forward_numbers.h"
#include "forward_rewrite.h"

/* Nothing of a forwarded flow goes up: the stack would answer with a reset. */
static __always_inline int forward_on(struct __sk_buff *skb, const struct packet *p,
                                      struct flow_record *rec, __u32 side, __u64 now)
{
	if (p->odd)
		return rule_none_up ? drop(FORWARD_ODD) : TCX_NEXT;
	if (!rule_first_end || !*(volatile __u32 *)&rec->end)
		follow(p, rec, side, now);
	return send(skb, p, &rec->side[side & 1]);
}

/* A packet of a flow that we have reset: userspace answers some. */
static __always_inline int after_reset(const struct packet *p, struct flow_record *rec, __u32 side,
                                       __u64 now)
{
	struct flow_side *s = &rec->side[side & 1];

	if (!p->odd && !(p->flags & RST) && now - s->seen_ns > WAKE_EVERY) {
		*(volatile __u32 *)&s->asked = p->ack;
		*(volatile __u64 *)&s->seen_ns = now;
		tell(EVENT_AFTER, rec, now);
	}
	return drop(FORWARD_RESET);
}

/* The client begins anew from the same port: the flow that has ended leaves its
 * addresses to the next one. Of a live flow a SYN is a packet like any other: the
 * ends challenge it.
 */
static __always_inline bool retires(const struct packet *p, struct flow_record *rec, __u32 side)
{
	if (side != CLIENT || p->odd || (p->flags & (SYN | ACK)) != SYN)
		return false;
	if (set_flags(rec, GONE_CLIENT))
		bpf_map_delete_elem(&flow_keys, &p->key);
	return true;
}

SEC("tc")
int forward(struct __sk_buff *skb)
{
	struct packet p = {};
	struct flow_record *rec;
	struct flow_ref *ref;
	__u32 side, state;
	__u64 now;

	if (!read_packet(skb, &p)) {
		if (!p.icmp || !rule_errors)
			return TCX_NEXT;
		return p.v4 ? forward_icmp_v4(skb) : forward_icmp_v6(skb);
	}
	ref = bpf_map_lookup_elem(&flow_keys, &p.key);
	if (!ref)
		return pass_up(skb, &p);
	side = ref->side & 1;
	rec = bpf_map_lookup_elem(&records, &ref->slot);
	if (!rec || (rule_same && !is_of(&p.key, rec, side)))
		return TCX_NEXT;
	now = bpf_ktime_get_ns();
	state = *(volatile __u32 *)&rec->state;
	if (state >= ENDED && rule_retire && retires(&p, rec, side))
		return pass_up(skb, &p);
	if (state == FORWARDED || state == ENDED)
		return forward_on(skb, &p, rec, side, now);
	if (state == RESET)
		return after_reset(&p, rec, side, now);
	if (state == FREE || p.odd)
		return TCX_NEXT;
	if (watch(skb, &p, rec, side, now))
		return forward_on(skb, &p, rec, side, now);
	COUNT(forward_counts, FORWARD_UP);
	return TCX_NEXT;
}

#include "forward_enlist.h"
#include "forward_plain.h"

char _license[] SEC("license") = "GPL";
