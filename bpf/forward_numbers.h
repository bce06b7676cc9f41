// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* How far a forwarded flow has got, by what its packets say. They are sent on
 * whatever they say: the ends judge them. Here only those are believed that an end
 * would believe (tcp_sequence() and tcp_ack() in net/ipv4/tcp_input.c), so that
 * who can't see the flow can't make its record say what isn't so.
 */
#include "forward_event.h"
#include "forward_packet.h"

#define MOST_WINDOW (65535U << 14)

static __always_inline bool after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

static __always_inline bool has_fin(const struct flow_record *rec, __u32 side)
{
	return *(volatile __u32 *)&rec->flags & FIN_CLIENT << side;
}

/* Raises a number, whatever another CPU does meanwhile. */
static __always_inline void raise_to(__u32 *n, __u32 to)
{
	int i;

	for (i = 0; i < 4; i++) {
		__u32 was = *(volatile __u32 *)n;

		if (!after(to, was) || __sync_val_compare_and_swap(n, was, to) == was)
			return;
	}
}

/* The same for one that counts its wraps. */
static __always_inline void raise_acked(struct flow_side *s, __u32 ack)
{
	int i;

	for (i = 0; i < 4; i++) {
		__u64 was = *(volatile __u64 *)&s->acked;
		__s32 more = ack - (__u32)was;

		if (more <= 0 || __sync_val_compare_and_swap(&s->acked, was, was + more) == was)
			return;
	}
}

/* Sets flags; those that weren't set before. */
static __always_inline __u32 set_flags(struct flow_record *rec, __u32 flags)
{
	if ((*(volatile __u32 *)&rec->flags & flags) == flags)
		return 0;
	return flags & ~__sync_fetch_and_or(&rec->flags, flags);
}

/* Ends a flow, unless it has ended. */
static __always_inline bool end_flow(struct flow_record *rec, __u32 why, __u64 now)
{
	if (__sync_val_compare_and_swap(&rec->end, GOES_ON, why) != GOES_ON) {
		if (rule_first_end)
			return false;
		*(volatile __u32 *)&rec->end = why;
	}
	*(volatile __u64 *)&rec->ended_ns = now;
	__sync_val_compare_and_swap(&rec->state, FORWARDED, ENDED);
	tell(EVENT_END, rec, now);
	return true;
}

/* An end of stream. */
static __always_inline void take_fin(struct flow_record *rec, __u32 side, __u32 end, __u64 now)
{
	__u32 first = side == BACKEND && !has_fin(rec, CLIENT) ? FIRST_FIN_BACKEND : 0;

	if (has_fin(rec, side))
		return;
	*(volatile __u32 *)&rec->side[side & 1].fin = end;
	if (set_flags(rec, FIN_CLIENT << side | first) & FIN_CLIENT << side &&
	    has_fin(rec, !(side & 1))) {
		count_end();
		tell(EVENT_FINS, rec, now);
	}
}

/* Whether an end would take what p acknowledges for its peer's words: nothing that
 * it hasn't sent, nor what is older than a window (RFC 5961, 5.2).
 */
static __always_inline bool could_acknowledge(const struct packet *p, const struct flow_side *s,
                                              const struct flow_side *o)
{
	__u32 sent = *(volatile __u32 *)&o->next + o->seq_add;
	__u32 acked = (__u32) * (volatile __u64 *)&s->acked;
	__u32 most = (__u32) * (volatile __u16 *)&s->widest << s->scale_in;

	return !after(p->ack, sent) && !after(acked - most, p->ack);
}

static __always_inline void take_ack(const struct packet *p, struct flow_record *rec, __u32 side,
                                     __u64 now)
{
	struct flow_side *s = &rec->side[side & 1], *o = &rec->side[!(side & 1)];
	__u32 acked = (__u32) * (volatile __u64 *)&s->acked;

	if (after(acked, p->ack))
		return; /* an old one */
	raise_acked(s, p->ack);
	raise_to(&s->edge, p->ack + ((__u32)p->window << s->scale_in));
	if (p->window > *(volatile __u16 *)&s->widest)
		*(volatile __u16 *)&s->widest = p->window;
	if (has_fin(rec, !(side & 1)) && !after(*(volatile __u32 *)&o->fin + o->seq_add, p->ack)) {
		set_flags(rec, FINACK_CLIENT << !(side & 1));
		if ((*(volatile __u32 *)&rec->flags & (FINACK_CLIENT | FINACK_BACKEND)) ==
		    (FINACK_CLIENT | FINACK_BACKEND))
			end_flow(rec, BY_FINS, now);
	}
}

/* A reset. One that isn't exact is challenged by its end. */
static __always_inline void take_reset(struct flow_record *rec, __u32 side, __u64 now)
{
	__u32 fins = *(volatile __u32 *)&rec->flags & (FIN_CLIENT | FIN_BACKEND);

	*(volatile __u64 *)&rec->side[side & 1].seen_ns = now;
	if (end_flow(rec, BY_RESET_OF_CLIENT + side, now) && fins != (FIN_CLIENT | FIN_BACKEND))
		count_end(); /* else it was when the second was seen */
}

/* What a packet brings that is new: payload, an end of stream. */
static __always_inline void take_data(const struct packet *p, struct flow_record *rec, __u32 side,
                                      __u32 end, __u64 now)
{
	struct flow_side *s = &rec->side[side & 1];

	if (after(end, *(volatile __u32 *)&s->next)) {
		raise_to(&s->next, end);
		if (p->payload) {
			*(volatile __u64 *)&s->data_ns = now;
			if (side == BACKEND && !rec->first_ns)
				*(volatile __u64 *)&rec->first_ns = now;
		}
	}
	if (p->flags & FIN)
		take_fin(rec, side, end, now);
}

/* A packet outside what its receiver expects, from una on. One before it was sent
 * again though it had arrived, asks whether the other end is there, or probes a
 * closed window: the receiver answers it and takes nothing from it.
 */
static __always_inline void take_outside(struct flow_side *s, __u32 una, __u32 end, __u64 now)
{
	if (end == una - 1)
		*(volatile __u64 *)&s->seen_ns = now;
	else if (una - end > MOST_WINDOW)
		COUNT(forward_counts, FORWARD_UNSURE);
}

/* Notes what a packet that comes from side says. */
static __always_inline void follow(const struct packet *p, struct flow_record *rec, __u32 side,
                                   __u64 now)
{
	struct flow_side *s = &rec->side[side & 1], *o = &rec->side[!(side & 1)];
	/* What the other side has acknowledged and what it offers, in s's numbers. */
	__u32 una = (__u32) * (volatile __u64 *)&o->acked + o->ack_add;
	__u32 limit = *(volatile __u32 *)&o->edge + o->ack_add;
	__u32 end = p->seq + p->payload + (p->flags & FIN ? 1 : 0);

	__sync_fetch_and_add(&s->packets, 1);
	if (rule_believe && (after(una, end) || after(p->seq, limit))) {
		take_outside(s, una, end, now);
		return;
	}
	if (p->flags & RST) {
		if (!rule_believe || p->seq == una || p->seq == *(volatile __u32 *)&s->next)
			take_reset(rec, side, now);
		return;
	}
	if (p->flags & SYN)
		return; /* its end answers with what it knows */
	if (rule_believe && (!(p->flags & ACK) || !could_acknowledge(p, s, o))) {
		COUNT(forward_counts, FORWARD_UNSURE);
		return;
	}
	*(volatile __u64 *)&s->seen_ns = now;
	take_data(p, rec, side, end, now);
	take_ack(p, rec, side, now);
}
