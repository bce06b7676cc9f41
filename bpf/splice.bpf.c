// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/* Moves a flow's bytes to its other socket, or leaves them to userspace. */
#include "splice_maps.h"

/* The fields that say how far a socket has got and what it may receive; CO-RE
 * finds them.
 */
struct sock {
	int sk_rcvbuf;
} __attribute__((preserve_access_index));

struct inet_sock {
	struct sock sk;
} __attribute__((preserve_access_index));

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} __attribute__((preserve_access_index));

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 snd_nxt;
} __attribute__((preserve_access_index));

/* What one call can take off the front of a buffer. */
#define TRIM_MOST 4095

/* The rules of docs/splice.md. Only the tests that show what each one is for
 * switch one off.
 */
const volatile bool rule_drop_fin = true;
const volatile bool rule_mark = true;
const volatile bool rule_behind = true;
const volatile bool rule_target = true;
const volatile bool rule_announce = true;
const volatile bool rule_trim = true;
const volatile bool rule_queued = true;
const volatile bool rule_unread = true;

/* Calls that take off the most that a buffer of 64 KiB can begin with. */
const volatile __u32 trims = 17;

static __always_inline void announce(__u32 index)
{
	if (rule_announce && bpf_ringbuf_output(&events, &index, sizeof(index), 0))
		COUNT(splice_counts, EVENT_LOST);
}

/* The kernel has acknowledged the bytes and drops them. */
static __always_inline int lose(struct direction *dir, __u32 index, __u32 why)
{
	COUNT(splice_counts, why);
	dir->flags |= BROKEN;
	announce(index);
	return SK_DROP;
}

/* Whether userspace has left more unread than the socket is ever charged for. */
static __always_inline bool too_much(struct direction *dir, __u32 index, __u32 len)
{
	__u64 unread = dir->passed + len - *(volatile __u64 *)&dir->forwarded, most = MOST_UNREAD;
	struct bpf_sock *sk;
	struct tcp_sock *tp;

	if (unread <= most)
		return false;
	sk = bpf_map_lookup_elem(&targets, &index);
	if (!sk)
		return true;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		most += (__u32)tp->inet_conn.icsk_inet.sk.sk_rcvbuf;
	bpf_sk_release(sk);
	return unread > most;
}

static __always_inline int pass(struct direction *dir, __u32 index, __u32 len, __u32 why)
{
	bool first = dir->passed == *(volatile __u64 *)&dir->forwarded;

	if (rule_unread && too_much(dir, index, len))
		return lose(dir, index, DROPPED_UNREAD);
	COUNT(splice_counts, why);
	*(volatile __u64 *)&dir->passed = dir->passed + len;
	/* After the count, so that whoever hears of it finds it; before the
	 * bytes are queued, so who hears has to wait for them, not just read.
	 */
	if (first)
		announce(index);
	return SK_PASS;
}

/* How far userspace had read the socket before it was added. */
static __always_inline __u32 read_before(__u32 index, __u32 otherwise)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&targets, &index);
	struct tcp_sock *tp;

	if (!sk)
		return otherwise;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		otherwise = tp->copied_seq;
	bpf_sk_release(sk);
	return otherwise;
}

/* A sender may repeat bytes together with new ones: it joins small segments
 * when it sends them again. read(2) skips what it has had; the kernel's way to
 * the verdict (tcp_read_skb) doesn't. False: they can't be taken off.
 */
static __always_inline bool trim(struct __sk_buff *skb, struct direction *dir, __u32 index)
{
	/* Here cb is TCP's own: seq, then end_seq (struct sk_skb_cb, since 5.16). */
	__u32 seq = skb->cb[0], len = skb->len, i, n;
	__u32 had;

	if (!(dir->flags & SEQ_KNOWN)) {
		dir->next_seq = read_before(index, seq);
		dir->flags |= SEQ_KNOWN;
	}
	had = dir->next_seq - seq;
	dir->next_seq = seq + len;
	if (!had)
		return true;
	if (had > len) /* also a gap, which is no less than a wrong number */
		return false;
	COUNT(splice_counts, TRIMMED);
	for (i = 0; i < trims && had; i++) {
		n = had < TRIM_MOST ? had : TRIM_MOST;
		if (bpf_skb_adjust_room(skb, -(__s32)n, 0, 0))
			return false;
		had -= n;
	}
	return !had;
}

enum { TARGET_OK, TARGET_OVER, TARGET_MISSING };

/* Whether the target can take more. Its unsent bytes are those moved less
 * those beyond its snd_nxt: what waits in its psock queue and its send queue.
 */
static __always_inline int look_at_target(struct direction *dir, __u32 peer)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&targets, &peer);
	int verdict = TARGET_MISSING;
	struct tcp_sock *tp;
	__u32 moved;

	if (!sk)
		return TARGET_MISSING;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		moved = (__u32)(dir->redirected + dir->forwarded);
		if (!(dir->flags & BASE_KNOWN)) {
			/* Nothing is under way: neither a redirect, as there was
			 * none yet, nor a write, as forwarded == passed.
			 */
			dir->base_seq = tp->write_seq - moved;
			dir->flags |= BASE_KNOWN;
		}
		if ((__s32)(moved + dir->base_seq - tp->write_seq) <= 0)
			dir->queued = 0;
		verdict = TARGET_OK;
		if ((__s32)(moved + dir->base_seq - tp->snd_nxt) > (__s32)dir->mark && rule_mark)
			verdict = TARGET_OVER;
		if (dir->queued >= MOST_QUEUED && rule_queued)
			verdict = TARGET_OVER;
	}
	bpf_sk_release(sk);
	return verdict;
}

SEC("sk_skb/stream_verdict")
int verdict(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u32 len = skb->len, index, peer, *found;
	struct direction *dir;
	int target;

	/* A bare FIN. Redirected it breaks the target (EPIPE), passed it can
	 * break the other direction: it would wait in the same queue.
	 */
	if (len == 0 && rule_drop_fin) {
		COUNT(splice_counts, DROPPED_FIN);
		return SK_DROP;
	}
	found = bpf_map_lookup_elem(&indices, &cookie);
	dir = found ? bpf_map_lookup_elem(&directions, found) : NULL;
	if (!dir) {
		COUNT(splice_counts, PASSED_NO_FLOW);
		return SK_PASS;
	}
	index = *found;
	peer = index ^ 1;
	if (dir->flags & BROKEN)
		return SK_DROP;
	if (rule_trim) {
		if (!trim(skb, dir, index))
			return lose(dir, index, ORDER_LOST);
		len = skb->len;
		if (!len && rule_drop_fin) { /* one behind nothing new */
			COUNT(splice_counts, DROPPED_FIN);
			return SK_DROP;
		}
	}
	dir->last_ns = bpf_ktime_get_ns();
	dir->runs++;

	/* Order: nothing may overtake bytes that userspace still has. */
	if (rule_behind && dir->passed != *(volatile __u64 *)&dir->forwarded)
		return pass(dir, index, len, PASSED_BEHIND);
	if (*(volatile __u32 *)&dir->hold)
		return pass(dir, index, len, PASSED_HOLD);
	target = look_at_target(dir, peer);
	if (target == TARGET_MISSING && rule_target)
		return pass(dir, index, len, PASSED_NO_TARGET);
	if (target == TARGET_OVER) {
		dir->over++;
		return pass(dir, index, len, PASSED_OVER);
	}
	if (bpf_sk_redirect_map(skb, &targets, peer, 0) != SK_PASS)
		return lose(dir, index, REDIRECT_FAILED);
	dir->redirected += len;
	dir->queued++;
	COUNT(splice_counts, REDIRECTED);
	return SK_PASS;
}

char _license[] SEC("license") = "GPL";
