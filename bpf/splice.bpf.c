// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/* Moves a flow's bytes to its other socket, or leaves them to userspace. */
#include "splice_maps.h"

/* The fields that say how far a socket has got; CO-RE finds them. */
struct tcp_sock {
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

/* Calls that take off the most that a buffer of 64 KiB can begin with. */
const volatile __u32 trims = 17;

static __always_inline void announce(__u32 index)
{
	if (rule_announce && bpf_ringbuf_output(&news, &index, sizeof(index), 0))
		COUNT(splice_counts, NEWS_LOST);
}

/* The kernel has acknowledged the bytes and drops them. */
static __always_inline int lose(struct half *half, __u32 index, __u32 why)
{
	COUNT(splice_counts, why);
	half->flags |= BROKEN;
	announce(index);
	return SK_DROP;
}

static __always_inline int pass(struct half *half, __u32 index, __u32 len, __u32 why)
{
	bool first = half->passed == *(volatile __u64 *)&half->forwarded;

	COUNT(splice_counts, why);
	*(volatile __u64 *)&half->passed = half->passed + len;
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
static __always_inline bool trim(struct __sk_buff *skb, struct half *half, __u32 index)
{
	/* Here cb is TCP's own: seq, then end_seq (struct sk_skb_cb, since 5.16). */
	__u32 seq = skb->cb[0], len = skb->len, i, n;
	__u32 had;

	if (!(half->flags & SEQ_KNOWN)) {
		half->next_seq = read_before(index, seq);
		half->flags |= SEQ_KNOWN;
	}
	had = half->next_seq - seq;
	half->next_seq = seq + len;
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
static __always_inline int look_at_target(struct half *half, __u32 peer)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&targets, &peer);
	int verdict = TARGET_MISSING;
	struct tcp_sock *tp;
	__u32 moved;

	if (!sk)
		return TARGET_MISSING;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		moved = (__u32)(half->redirected + half->forwarded);
		if (!(half->flags & BASE_KNOWN)) {
			/* Nothing is under way: neither a redirect, as there was
			 * none yet, nor a write, as forwarded == passed.
			 */
			half->base_seq = tp->write_seq - moved;
			half->flags |= BASE_KNOWN;
		}
		verdict = TARGET_OK;
		if ((__s32)(moved + half->base_seq - tp->snd_nxt) > (__s32)half->mark)
			verdict = TARGET_OVER;
	}
	bpf_sk_release(sk);
	return verdict;
}

SEC("sk_skb/stream_verdict")
int verdict(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u32 len = skb->len, index, peer, *place;
	struct half *half;
	int target;

	/* A bare FIN. Redirected it breaks the target (EPIPE), passed it can
	 * break the other direction: it would wait in the same queue.
	 */
	if (len == 0 && rule_drop_fin) {
		COUNT(splice_counts, DROPPED_FIN);
		return SK_DROP;
	}
	place = bpf_map_lookup_elem(&places, &cookie);
	half = place ? bpf_map_lookup_elem(&halves, place) : NULL;
	if (!half) {
		COUNT(splice_counts, PASSED_NO_PLACE);
		return SK_PASS;
	}
	index = *place;
	peer = index ^ 1;
	if (half->flags & BROKEN)
		return SK_DROP;
	if (rule_trim) {
		if (!trim(skb, half, index))
			return lose(half, index, ORDER_LOST);
		len = skb->len;
		if (!len && rule_drop_fin) { /* one behind nothing new */
			COUNT(splice_counts, DROPPED_FIN);
			return SK_DROP;
		}
	}
	half->last_ns = bpf_ktime_get_ns();
	half->runs++;
	if (len >= BIG_RUN)
		half->big++;

	/* Order: nothing may overtake bytes that userspace still has. */
	if (rule_behind && half->passed != *(volatile __u64 *)&half->forwarded)
		return pass(half, index, len, PASSED_BEHIND);
	if (*(volatile __u32 *)&half->hold)
		return pass(half, index, len, PASSED_HOLD);
	target = look_at_target(half, peer);
	if (target == TARGET_MISSING && rule_target)
		return pass(half, index, len, PASSED_NO_TARGET);
	if (target == TARGET_OVER && rule_mark) {
		half->over++;
		return pass(half, index, len, PASSED_OVER);
	}
	if (bpf_sk_redirect_map(skb, &targets, peer, 0) != SK_PASS)
		return lose(half, index, REDIRECT_FAILED);
	half->redirected += len;
	COUNT(splice_counts, REDIRECTED);
	return SK_PASS;
}

char _license[] SEC("license") = "GPL";
