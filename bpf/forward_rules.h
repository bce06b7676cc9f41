// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
#pragma once

/* Rules that a test may take away, to see what becomes of a flow without them. They
 * are constants when the program is loaded: the verifier leaves out what they decide.
 */
#include "common.h"

const volatile bool rule_both_seen = true; /* no cut before a packet of each side */
const volatile bool rule_open = true;      /* an open window stays open */
const volatile bool rule_believe = true;   /* of a packet only what its end would believe */
const volatile bool rule_retire = true;    /* an ended flow leaves a SYN its addresses */
const volatile bool rule_first_end = true; /* what ended a flow is written once */
const volatile bool rule_none_up = true;   /* no packet of a forwarded flow goes up */
const volatile bool rule_errors = true;    /* of ICMP are for who sent the packet */
const volatile bool rule_whole = true;     /* as much as is read is in one piece */
const volatile bool rule_untag = true;     /* a tag of VLAN 0 is none */
const volatile bool rule_same = true;      /* a record is the flow's that its key says */
const volatile bool rule_reached = true;   /* no cut before what was left to sockets reached them */
