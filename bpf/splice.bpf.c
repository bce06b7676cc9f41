// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/* Moves a flow's bytes to its other socket, or leaves them to userspace. */
#include "splice_maps.h"

/* The two fields that say how far the target has got; CO-RE finds them. */
struct tcp_sock {
	__u32 write_seq;
	__u32 snd_nxt;
} __attribute__((preserve_access_index));

/* The rules of docs/splice.md. Only the tests that show what each one is for
 * switch one off.
 */
const volatile bool rule_drop_fin = true;
const volatile bool rule_mark = true;
const volatile bool rule_behind = true;
const volatile bool rule_target = true;
const volatile bool rule_announce = true;

static __always_inline int pass(struct half *half, __u32 index, __u32 len, __u32 why)
{
	bool first = half->passed == *(volatile __u64 *)&half->forwarded;

	COUNT(splice_counts, why);
	*(volatile __u64 *)&half->passed = half->passed + len;
	/* After the count, so that whoever hears of it finds it; before the
	 * bytes are queued, so who hears has to wait for them, not just read.
	 */
	if (first && rule_announce && bpf_ringbuf_output(&news, &index, sizeof(index), 0))
		COUNT(splice_counts, NEWS_LOST);
	return SK_PASS;
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
	if (bpf_sk_redirect_map(skb, &targets, peer, 0) != SK_PASS) {
		/* The kernel has acknowledged the bytes and drops them. */
		COUNT(splice_counts, REDIRECT_FAILED);
		return SK_DROP;
	}
	half->redirected += len;
	COUNT(splice_counts, REDIRECTED);
	return SK_PASS;
}

char _license[] SEC("license") = "GPL";
