/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The target is BPF whatever the host is; the host's asm/ isn't looked at. */
#include <asm-generic/types.h>
