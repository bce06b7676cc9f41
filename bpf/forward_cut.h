// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* The cut: from which packet on a flow is forwarded. Decided on a packet, by the
 * numbers of this moment: nothing may be under way in either direction, neither in
 * the network, nor in the host's sockets, nor in userspace's hands.
 */
#include "forward_event.h"
#include "forward_packet.h"
#include "forward_socket.h"

/* What was left to a socket this long ago has reached it or is lost. A number that
 * the socket doesn't know by then was forged, or its packet dropped.
 */
#define SETTLED (1000 * 1000000ULL)

/* A packet that came before the flow was registered has reached its socket by then. */
#define ARRIVED (100 * 1000000ULL)

/* A number of milliseconds by which timestamps go ahead of those that the host's
 * sockets may still send: they are old then, and so is what they belong to.
 */
#define TIMESTAMP_MARGIN 1000

static __always_inline bool read_by_now(const struct look *l)
{
	return l->rcv_nxt == l->copied_seq && !l->busy;
}

/* Whether both ends of stream are in a state that forwarding goes on from. */
static __always_inline bool states_match(const struct look *a, const struct look *b)
{
	if (a->state == TCP_ESTABLISHED)
		return b->state == TCP_ESTABLISHED;
	return (a->state == TCP_CLOSE_WAIT && b->state == TCP_FIN_WAIT2) ||
	       (a->state == TCP_FIN_WAIT2 && b->state == TCP_CLOSE_WAIT);
}

/* Whether all is quiet with this packet, which comes from side. l are the two
 * sockets, by the side that they face.
 */
static __always_inline bool quiet(struct __sk_buff *skb, const struct packet *p,
                                  struct flow_record *rec, __u32 side, struct look l[SIDES],
                                  __u64 now)
{
	struct look *mine = &l[side & 1], *other = &l[!(side & 1)];
	struct flow_key key;

	/* The compiler adds to an address that it knows to be aligned by an OR, which
	 * the verifier refuses.
	 */
	asm volatile("" : "+r"(mine), "+r"(other));
	if (!look_up(skb, &p->key, mine, now))
		return false;
	/* Exactly in order, so that it is nobody's guess; it acknowledges all. */
	if (p->seq != mine->rcv_nxt || p->ack != mine->write_seq ||
	    mine->snd_nxt != mine->write_seq || !read_by_now(mine))
		return false;
	key_of(rec, !(side & 1), &key);
	if (!look_up(skb, &key, other, now))
		return false;
	if (other->snd_una != other->write_seq || !read_by_now(other))
		return false;
	/* What was read was written, and nothing else. */
	return mine->rcv_nxt + rec->side[side & 1].seq_add == other->write_seq &&
	       other->rcv_nxt + rec->side[!(side & 1)].seq_add == mine->write_seq &&
	       states_match(mine, other);
}

/* Whether what was left to the socket that faces a side has reached it. */
static __always_inline bool reached(const struct flow_watch *w, __u32 side, const struct look *l,
                                    __u64 now)
{
	/* What was raised on another CPU meanwhile was after now. */
	return !rule_reached || w->in[side & 1] == l->rcv_nxt ||
	       (__s64)(now - w->raised[side & 1]) > (__s64)SETTLED;
}

/* The numbers of a side from which forwarding goes on. */
static __always_inline void begin_side(struct flow_record *rec, __u32 side, const struct look *mine,
                                       const struct look *other, __u64 now)
{
	struct flow_side *s = &rec->side[side & 1];
	/* The other side still goes by what our socket has offered it. */
	__u32 promised = other->rcv_nxt + rec->side[!(side & 1)].seq_add + other->room;
	__u32 widest = mine->max_window >> s->scale_in;
	__u32 margin = other->usec ? TIMESTAMP_MARGIN * 1000 : TIMESTAMP_MARGIN;

	s->next = s->cut = mine->rcv_nxt;
	s->acked = s->base = 1ULL << 32 | mine->write_seq;
	s->edge = mine->write_seq + mine->snd_wnd;
	if ((__s32)(promised - s->edge) > 0)
		s->edge = promised;
	s->widest = widest < 65535 ? widest : 65535;
	s->tsval_add = other->ts_now + margin - mine->ts_recent;
	rec->side[!(side & 1)].tsecr_add = -s->tsval_add;
	rec->side[!(side & 1)].tsecr_min = mine->ts_recent + s->tsval_add;
	s->seen_ns = now;
	s->data_ns = 0;
	s->packets = 0;
	s->fin = mine->rcv_nxt;
}

static __always_inline __u32 flags_of(__u32 side, const struct look *mine)
{
	if (mine->state != TCP_CLOSE_WAIT)
		return 0;
	return (FIN_CLIENT | FINACK_CLIENT) << side | (side == BACKEND ? FIRST_FIN_BACKEND : 0);
}

/* Whether a packet tells that what its end sent before the flow was registered is with our
 * socket, or in what was left to it since. One that passed here before there was a key may
 * be on its way up still, on another CPU, and nothing else knows of it: the answer to what
 * was written a moment ago, above all. Not so if this one brings more, or acknowledges what
 * was written since. An end that neither sends nor is sent anything tells it by time.
 */
static __always_inline bool tells(const struct flow_watch *w, const struct packet *p, __u32 side,
                                  __u32 end, __u64 now)
{
	__s32 more = end - *(volatile __u32 *)&w->in[side & 1];

	if ((__s64)(now - w->since) > (__s64)ARRIVED)
		return true;
	return p->flags & ACK && (more > 0 || (!more && (__s32)(p->ack - w->wrote[side & 1]) > 0));
}

/* Counts a packet of a flow whose sockets have it, and decides whether it is the
 * first to be forwarded. False: it is the sockets'.
 */
static __always_inline bool watch(struct __sk_buff *skb, const struct packet *p,
                                  struct flow_record *rec, __u32 side, __u64 now)
{
	struct look l[SIDES] = {};
	__u32 index = rec->index, seen = SEEN_CLIENT << side, end = p->seq + p->payload;
	struct flow_watch *w = bpf_map_lookup_elem(&watches, &index);
	bool candidate = false, cut = false, late = false;

	if (!w)
		return false;
	if (p->flags & FIN)
		end++;
	if (!(rec->flags & seen) && tells(w, p, side, end, now))
		__sync_fetch_and_or(&rec->flags, seen);
	if (*(volatile __u32 *)&rec->state == ARMED && (p->flags & (SYN | RST | ACK)) == ACK &&
	    (!rule_both_seen ||
	     (rec->flags & (SEEN_CLIENT | SEEN_BACKEND)) == (SEEN_CLIENT | SEEN_BACKEND))) {
		candidate = quiet(skb, p, rec, side, l, now);
		if (!candidate)
			COUNT(forward_counts, FORWARD_UNQUIET);
	}
	bpf_spin_lock(&w->lock);
	if (*(volatile __u32 *)&rec->state >= FORWARDED) {
		late = true; /* another packet was the first, just now */
	} else if (candidate && reached(w, CLIENT, &l[CLIENT], now) &&
	           reached(w, BACKEND, &l[BACKEND], now)) {
		begin_side(rec, CLIENT, &l[CLIENT], &l[BACKEND], now);
		begin_side(rec, BACKEND, &l[BACKEND], &l[CLIENT], now);
		rec->cut_ns = now;
		rec->first_ns = 0;
		__sync_fetch_and_or(&rec->flags,
		                    flags_of(CLIENT, &l[CLIENT]) | flags_of(BACKEND, &l[BACKEND]));
		cut = __sync_val_compare_and_swap(&rec->state, ARMED, FORWARDED) == ARMED;
	}
	if (!late && !cut && (__s32)(end - w->in[side & 1]) > 0) {
		w->in[side & 1] = end;
		w->raised[side & 1] = now;
	}
	bpf_spin_unlock(&w->lock);
	if (cut) {
		COUNT(forward_counts, FORWARD_CUT);
		tell(EVENT_CUT, rec, now);
	}
	return cut || late;
}
