/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* linux/posix_types.h wants one; the programs use none of its types. */
