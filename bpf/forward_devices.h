// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* The devices that the forward program runs on, kept by userspace. A flow whose
 * route leads to another one isn't forwarded: its packets would come back unseen.
 */
#include "common.h"

#define MAX_DEVICES 4096

/* Flags of a device. */
enum device_flags {
	DEVICE_HOOKED = 1 << 0, /* the program sees what arrives by it */
	DEVICE_FIRST = 1 << 1,  /* and before every other tc program: as of the last look */
};

/* ifindex -> enum device_flags */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_DEVICES);
	__type(key, __u32);
	__type(value, __u32);
} forward_devices SEC(".maps");
