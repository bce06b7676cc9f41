// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//go:build ignore

/* What a clsact filter holds in place of the forward program. A filter outlives
 * its process, and what it refers to lives on with it: of this one that is an array
 * which the kernel empties with its last descriptor. Then every packet passes.
 */
#include "common.h"
#include <linux/pkt_cls.h>

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} forward_entry SEC(".maps");

SEC("tc")
int forward_stub(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &forward_entry, 0);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
