// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* How userspace hears of flows. */
#include "forward_maps.h"

/* Userspace looks again this long after it was woken, so that no event that
 * doesn't wake it waits longer.
 */
#define WAKE_EVERY (10 * 1000000ULL)

static __always_inline struct forward_shared *common(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&forward_common, &zero);
}

/* An event that finds no room is found by the scan of each second. */
static __always_inline void tell(__u32 kind, const struct flow_record *rec, __u64 now)
{
	struct forward_shared *c = common();
	__u32 event = kind | rec->index;
	__u64 how = BPF_RB_NO_WAKEUP;

	if (c && now - c->woke_ns >= WAKE_EVERY) {
		*(volatile __u64 *)&c->woke_ns = now;
		how = BPF_RB_FORCE_WAKEUP;
	}
	if (bpf_ringbuf_output(&forward_events, &event, sizeof(event), how))
		COUNT(forward_counts, FORWARD_LOST_EVENT);
}

/* A flow has ended as its ends see it: its place in a limit is free. */
static __always_inline void count_end(void)
{
	struct forward_shared *c = common();

	if (c)
		__sync_fetch_and_add(&c->ends, 1);
}
