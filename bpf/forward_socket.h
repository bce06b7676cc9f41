// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* What the host's own sockets of a flow say. CO-RE finds the fields. */
#include "forward_maps.h"

#include <bpf/bpf_core_read.h>

struct net_device {
	int ifindex;
} __attribute__((preserve_access_index));

struct xfrm_state;

struct dst_entry {
	struct net_device *dev;
	struct xfrm_state *xfrm;
} __attribute__((preserve_access_index));

struct sock_common {
	volatile unsigned char skc_state;
} __attribute__((preserve_access_index));

typedef struct {
	int owned;
} __attribute__((preserve_access_index)) socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	struct {
		int len;
	} sk_backlog;
	int sk_rx_dst_ifindex;
	struct dst_entry *sk_dst_cache;
} __attribute__((preserve_access_index));

struct inet_sock {
	struct sock sk;
} __attribute__((preserve_access_index));

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} __attribute__((preserve_access_index));

struct tcp_options_received {
	__u32 ts_recent;
	__u16 tstamp_ok : 1;
	__u16 snd_wscale : 4;
	__u16 rcv_wscale : 4;
	__u16 mss_clamp;
} __attribute__((preserve_access_index));

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 snd_wnd;
	__u32 rcv_wnd;
	__u32 rcv_ssthresh;
	__u32 max_window;
	__u32 mss_cache;
	__u32 tsoffset;
	__u16 advmss;
	__u8 ecn_flags;
	__u8 tcp_usec_ts : 1;
	struct tcp_options_received rx_opt;
} __attribute__((preserve_access_index));

#define TCP_ESTABLISHED 1
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE_WAIT 8
#define TCP_ECN_OK 1

#define LOOPBACK_IFINDEX 1 /* in each network namespace */

/* A socket at one moment. */
struct look {
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 snd_wnd;
	__u32 room; /* that it offers from rcv_nxt on, or may with its next segment */
	__u32 max_window;
	__u32 ts_recent;
	__u32 ts_now;
	__u8 state;
	bool busy; /* somebody in user context has it, or packets wait for it */
	bool usec;
};

static __always_inline bool is_v4(const struct flow_key *key)
{
	return key->saddr[2] == bpf_htonl(0xffff) && !key->saddr[0] && !key->saddr[1];
}

/* The socket that the packets with this key are for; to be released. IPv6's
 * sockets of IPv4 connections are found by IPv4.
 */
static __always_inline struct bpf_sock *find_socket(struct __sk_buff *skb,
                                                    const struct flow_key *key)
{
	struct bpf_sock_tuple tuple = {};

	if (is_v4(key)) {
		tuple.ipv4.saddr = key->saddr[3];
		tuple.ipv4.daddr = key->daddr[3];
		tuple.ipv4.sport = key->sport;
		tuple.ipv4.dport = key->dport;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, key->saddr, sizeof(key->saddr));
	__builtin_memcpy(tuple.ipv6.daddr, key->daddr, sizeof(key->daddr));
	tuple.ipv6.sport = key->sport;
	tuple.ipv6.dport = key->dport;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

static __always_inline void look_at(struct tcp_sock *tp, struct look *l, __u64 now)
{
	__u64 ticks = now / 1000000;

	l->usec = bpf_core_field_exists(tp->tcp_usec_ts) && BPF_CORE_READ_BITFIELD(tp, tcp_usec_ts);
	if (l->usec)
		ticks = now / 1000;
	l->rcv_nxt = tp->rcv_nxt;
	l->copied_seq = tp->copied_seq;
	l->write_seq = tp->write_seq;
	l->snd_nxt = tp->snd_nxt;
	l->snd_una = tp->snd_una;
	l->snd_wnd = tp->snd_wnd;
	/* What it has offered was from an older number on; what it will is bounded so
	 * (__tcp_select_window() in net/ipv4/tcp_output.c).
	 */
	l->room = tp->rcv_wnd > tp->rcv_ssthresh ? tp->rcv_wnd : tp->rcv_ssthresh;
	l->max_window = tp->max_window;
	l->ts_recent = tp->rx_opt.ts_recent;
	l->ts_now = (__u32)ticks + tp->tsoffset; /* tcp_time_stamp_ts() in net/ipv4/tcp_output.c */
	l->state = tp->inet_conn.icsk_inet.sk.__sk_common.skc_state;
	l->busy = tp->inet_conn.icsk_inet.sk.sk_lock.owned ||
	          tp->inet_conn.icsk_inet.sk.sk_backlog.len;
}

/* False: there is no such connection. */
static __always_inline bool look_up(struct __sk_buff *skb, const struct flow_key *key,
                                    struct look *l, __u64 now)
{
	struct bpf_sock *sk = find_socket(skb, key);
	struct tcp_sock *tp;

	if (!sk)
		return false;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		look_at(tp, l, now);
	bpf_sk_release(sk);
	return tp;
}

/* The key of the packets that come from this side, by the record. */
static __always_inline void key_of(const struct flow_record *rec, __u32 side, struct flow_key *key)
{
	const struct flow_side *other = &rec->side[!(side & 1)];

	__builtin_memcpy(key->saddr, other->daddr, sizeof(key->saddr));
	__builtin_memcpy(key->daddr, other->saddr, sizeof(key->daddr));
	key->sport = other->dport;
	key->dport = other->sport;
}
