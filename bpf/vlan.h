/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * VLAN tags. A program is attached to the interface that VLANs lie on, where their frames carry a tag: it stands for the
 * interface that the frame is for. Redirects can't go to a VLAN interface either: the tag of the real server's network is put
 * into the frame, changed in it or taken out of it, and what was behind it stays as it came.
 */
#pragma once

#include "include/kernel.h"
#include "include/bpf_endian.h"

#define ETHERTYPE_VLAN 0x8100
#define VLAN_ID_MASK 0x0fff /* in front of it are the priority and whether the frame may be dropped */
#define VLAN_IDS 4096

/* Set by the loader, one value per program: of the interface that it is attached to. */
volatile const __u32 own_slot;	    /* in `interfaces` and `frames` */
volatile const __u32 own_interface; /* interface index */

/* The slot, plus one, of the interface whose frames carry this id; that of
 * frames without a tag, or with id 0, is the first. 0: they are none of ours. */
volatile const __u8 own_networks[VLAN_IDS];

/* What stands in a tagged frame instead of the type of its payload, and what of that is behind it. */
struct vlan_tag {
	__be16 control;
	__be16 type;
};

struct tagged_addresses {
	__u8 destination[6];
	__u8 source[6];
	__be16 protocol; /* ETHERTYPE_VLAN */
	__be16 control;
};

_Static_assert(sizeof(struct tagged_addresses) == 16, "tagged_addresses is what lies before the payload's type");

/* The slot, plus one, of the interface that a tag is for; 0: none of ours. */
static __always_inline __u32 network_of(const struct vlan_tag *tag)
{
	__u64 id = bpf_ntohs(tag->control);

	/* After a change of byte order the verifier of Linux 6.1 knows no bounds any more, and the compiler would mask before. */
	asm volatile("" : "+r"(id));
	return own_networks[id & VLAN_ID_MASK];
}
