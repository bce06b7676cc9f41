// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* Programs that userspace runs itself (BPF_PROG_TEST_RUN): what only the kernel can
 * read of a pair of sockets. The packet is an order, behind the link header.
 */
#include "forward_cut.h"
#include "forward_devices.h"

struct flow_order {
	struct flow_key key[SIDES]; /* of the packets that come from a side */
	__u32 slot;
	__u32 state; /* WATCHED or ARMED */
};

/* What decides whether two sockets fit together. */
struct fit {
	__u32 ifindex; /* to the peer */
	__u32 came_by; /* from the peer; 0: not known */
	__u32 most;    /* bytes of a segment that the peer sends */
	__u32 takes;   /* that can be sent to it */
	__u8 scale_in; /* of the peer's windows */
	__u8 scale_out;
	bool timestamps;
	bool ecn;
	bool xfrm;
};

#define TIMESTAMPS_BYTES 12

static __always_inline void measure(struct tcp_sock *tp, struct fit *f)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	__u32 advertised = tp->advmss, clamp = tp->rx_opt.mss_clamp;
	struct dst_entry *dst;

	f->came_by = sk->sk_rx_dst_ifindex;
	dst = BPF_CORE_READ(sk, sk_dst_cache);
	if (dst) {
		f->ifindex = BPF_CORE_READ(dst, dev, ifindex);
		f->xfrm = BPF_CORE_READ(dst, xfrm);
	}
	f->timestamps = BPF_CORE_READ_BITFIELD(tp, rx_opt.tstamp_ok);
	f->scale_in = BPF_CORE_READ_BITFIELD(tp, rx_opt.snd_wscale);
	f->scale_out = BPF_CORE_READ_BITFIELD(tp, rx_opt.rcv_wscale);
	f->ecn = tp->ecn_flags & TCP_ECN_OK;
	f->most = advertised < clamp ? advertised : clamp;
	f->takes = tp->mss_cache + (f->timestamps ? TIMESTAMPS_BYTES : 0);
}

static __always_inline __u32 judge_device(const struct fit *f, __u32 local)
{
	__u32 *flags;

	if (f->ifindex == LOOPBACK_IFINDEX || f->came_by == LOOPBACK_IFINDEX)
		return local;
	if (!f->ifindex || (f->came_by && f->came_by != f->ifindex))
		return NO_DEVICE;
	flags = bpf_map_lookup_elem(&forward_devices, &f->ifindex);
	if (!flags || (*flags & (DEVICE_HOOKED | DEVICE_FIRST)) != (DEVICE_HOOKED | DEVICE_FIRST))
		return NO_DEVICE;
	return f->xfrm ? XFRM : FITS;
}

/* Whether the windows of a mean what they mean in b's unit. */
static __always_inline bool scales(const struct fit *a, const struct fit *b)
{
	return 1U << b->scale_out <= (65535U << a->scale_in) / 4;
}

static __always_inline __u32 judge(const struct fit *c, const struct fit *b)
{
	__u32 why = judge_device(c, LOCAL_CLIENT);

	if (!why)
		why = judge_device(b, LOCAL_BACKEND);
	if (why)
		return why;
	if (c->timestamps != b->timestamps)
		return ONE_TIMESTAMPS;
	if (c->ecn != b->ecn)
		return ONE_ECN;
	if (c->most > b->takes || b->most > c->takes)
		return MSS;
	return scales(c, b) && scales(b, c) ? FITS : WSCALE;
}

/* Reads one of the two sockets. */
static __always_inline bool examine(struct __sk_buff *skb, const struct flow_key *key,
                                    struct look *l, struct fit *f, __u64 now)
{
	struct bpf_sock *sk = find_socket(skb, key);
	struct tcp_sock *tp;

	if (!sk)
		return false;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		look_at(tp, l, now);
		measure(tp, f);
	}
	bpf_sk_release(sk);
	return tp;
}

/* What adding these words adds to a checksum, less what those took. */
static __always_inline __u32 difference(const struct flow_key *was, const struct flow_side *s)
{
	__u64 sum = 0;
	int i;

	for (i = 0; i < 4; i++) {
		differ(&sum, was->saddr[i], s->saddr[i]);
		differ(&sum, was->daddr[i], s->daddr[i]);
	}
	return fold32(sum);
}

static __always_inline void fill_side(struct flow_record *rec, const struct flow_order *o,
                                      __u32 side, const struct fit *mine, const struct fit *other,
                                      const struct look *from, const struct look *to)
{
	struct flow_side *s = &rec->side[side & 1];
	const struct flow_key *back = &o->key[!(side & 1)];

	/* Where the other side's packets come from is where this one's go. */
	__builtin_memcpy(s->saddr, back->daddr, sizeof(s->saddr));
	__builtin_memcpy(s->daddr, back->saddr, sizeof(s->daddr));
	s->sport = back->dport;
	s->dport = back->sport;
	s->addr_diff = difference(&o->key[side & 1], s);
	s->ifindex = other->ifindex;
	s->scale_in = mine->scale_in;
	s->scale_out = other->scale_out;
	s->seq_add = to->write_seq - from->copied_seq;
	rec->side[!(side & 1)].ack_add = -s->seq_add;
}

/* Raises what was left to the sockets before the keys were there. */
static __always_inline void catch_up(struct flow_watch *w, const struct look l[SIDES], __u64 now)
{
	bpf_spin_lock(&w->lock);
	if ((__s32)(l[CLIENT].rcv_nxt - w->in[CLIENT]) > 0)
		w->in[CLIENT] = l[CLIENT].rcv_nxt;
	if ((__s32)(l[BACKEND].rcv_nxt - w->in[BACKEND]) > 0)
		w->in[BACKEND] = l[BACKEND].rcv_nxt;
	w->raised[CLIENT] = w->raised[BACKEND] = now;
	bpf_spin_unlock(&w->lock);
}

static __always_inline __u32 enter_keys(const struct flow_order *o)
{
	struct flow_ref ref = {.slot = o->slot, .side = BACKEND};

	if (bpf_map_update_elem(&flow_keys, &o->key[BACKEND], &ref, BPF_NOEXIST))
		return KEY_TAKEN;
	ref.side = CLIENT;
	if (!bpf_map_update_elem(&flow_keys, &o->key[CLIENT], &ref, BPF_NOEXIST))
		return FITS;
	bpf_map_delete_elem(&flow_keys, &o->key[BACKEND]);
	return KEY_TAKEN;
}

static __always_inline __u32 enlist_pair(struct __sk_buff *skb, struct flow_order *o,
                                         struct flow_record *rec, struct flow_watch *w)
{
	struct fit f[SIDES] = {};
	struct look l[SIDES] = {};
	__u64 now = bpf_ktime_get_ns();
	__u32 why;

	if (is_v4(&o->key[CLIENT]) != is_v4(&o->key[BACKEND]))
		return FAMILY;
	if (!examine(skb, &o->key[CLIENT], &l[CLIENT], &f[CLIENT], now) ||
	    !examine(skb, &o->key[BACKEND], &l[BACKEND], &f[BACKEND], now))
		return NO_SOCKET;
	if (!states_match(&l[CLIENT], &l[BACKEND]))
		return NOT_CONNECTED;
	why = judge(&f[CLIENT], &f[BACKEND]);
	if (why)
		return why;
	fill_side(rec, o, CLIENT, &f[CLIENT], &f[BACKEND], &l[CLIENT], &l[BACKEND]);
	fill_side(rec, o, BACKEND, &f[BACKEND], &f[CLIENT], &l[BACKEND], &l[CLIENT]);
	rec->flags = 0;
	rec->index = o->slot;
	rec->read[CLIENT] = l[CLIENT].copied_seq;
	rec->read[BACKEND] = l[BACKEND].copied_seq;
	w->in[CLIENT] = l[CLIENT].rcv_nxt;
	w->in[BACKEND] = l[BACKEND].rcv_nxt;
	w->wrote[CLIENT] = l[CLIENT].write_seq;
	w->wrote[BACKEND] = l[BACKEND].write_seq;
	w->since = now;
	*(volatile __u32 *)&rec->state = o->state;
	why = enter_keys(o);
	if (why) {
		*(volatile __u32 *)&rec->state = FREE;
		return why;
	}
	if (look_up(skb, &o->key[CLIENT], &l[CLIENT], now) &&
	    look_up(skb, &o->key[BACKEND], &l[BACKEND], now))
		catch_up(w, l, now);
	return FITS;
}

static __always_inline bool read_order(struct __sk_buff *skb, struct flow_order *o)
{
	return !bpf_skb_load_bytes(skb, L3, o, sizeof(*o));
}

/* Registers a pair of sockets between which userspace holds nothing. Returns why
 * not.
 */
SEC("tc")
int enlist(struct __sk_buff *skb)
{
	struct flow_order o;
	struct flow_record *rec;
	struct flow_watch *w;

	if (!read_order(skb, &o))
		return ORDER;
	rec = bpf_map_lookup_elem(&records, &o.slot);
	w = bpf_map_lookup_elem(&watches, &o.slot);
	if (!rec || !w)
		return ORDER;
	return enlist_pair(skb, &o, rec, w);
}

/* Whether the sockets of a flow that was cut have taken nothing since. Returns
 * why they can't be let go.
 */
SEC("tc")
int verify(struct __sk_buff *skb)
{
	struct flow_order o;
	struct look l[SIDES] = {};
	struct flow_record *rec;
	__u64 now = bpf_ktime_get_ns();

	if (!read_order(skb, &o))
		return ORDER;
	rec = bpf_map_lookup_elem(&records, &o.slot);
	if (!rec)
		return ORDER;
	/* One that is gone took nothing: a peer has reset it. */
	if (look_up(skb, &o.key[CLIENT], &l[CLIENT], now) &&
	    l[CLIENT].rcv_nxt != rec->side[CLIENT].cut)
		return ORDER;
	if (look_up(skb, &o.key[BACKEND], &l[BACKEND], now) &&
	    l[BACKEND].rcv_nxt != rec->side[BACKEND].cut)
		return ORDER;
	return FITS;
}
