// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

#include <linux/types.h>
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define NS_PER_S 1000000000ULL

/* One per-CPU slot an outcome. A per-CPU array of fixed size has every index
 * that the programs use, so a failed look-up can't happen.
 */
#define COUNT(map, what)                                                                           \
	do {                                                                                       \
		__u32 _what = (what);                                                              \
		__u64 *_n = bpf_map_lookup_elem(&(map), &_what);                                   \
		if (_n)                                                                            \
			(*_n)++;                                                                   \
	} while (0)
