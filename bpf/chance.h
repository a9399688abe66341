/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A second chance for the connections of a MASTER that has handed over. Its successor has none of its flows: what is no SYN and
 * has no flow goes to the box that was MASTER before, which looks into its own table and forwards what it knows. That one exception
 * to the rule that no director balances what another one sent can't go round: only a packet that no director has sent is given
 * on, and who gets one never schedules it and never gives it on.
 */
#pragma once

#include "maps.h"
#include "parse.h"
#include "service.h"

#define MAC_MASK 0xffffffffffffULL

static __always_inline __u64 previous_of(const struct words *own)
{
	return *(volatile __u64 *)&own->previous;
}

/* In time, and which of the two we are is told by `previous`. */
static __always_inline struct words *handover_of(__u32 router)
{
	struct words *own = bpf_map_lookup_elem(&words, &router);
	__u64 until = own && router ? *(volatile __u64 *)&own->until : 0;

	return until && bpf_ktime_get_ns() < until ? own : 0;
}

/* We are the successor, and this packet came in where the one before us is. */
__attribute__((noinline)) int has_predecessor(__u32 router, __u32 slot)
{
	struct words *own = handover_of(router);
	struct interface *here = bpf_map_lookup_elem(&interfaces, &slot);
	__u64 previous = own ? previous_of(own) : 0;

	return here && previous && previous >> 48 == (here->index & 0xffff);
}

/* We were MASTER until now: another director may send what it doesn't know. */
__attribute__((noinline)) int is_predecessor(__u32 router)
{
	struct words *own = handover_of(router);

	return own && !previous_of(own);
}

/* Sends the frame to the one before us, out of the interface that it came in by. */
__attribute__((noinline)) int give_on(struct xdp_md *ctx, __u32 router, __u32 slot)
{
	struct cursor cursor = {(void *)(long)ctx->data, (void *)(long)ctx->data_end};
	struct words *own = bpf_map_lookup_elem(&words, &router);
	struct interface *here = bpf_map_lookup_elem(&interfaces, &slot);
	struct ethernet_header *to = take(&cursor, sizeof(*to));
	__u64 previous;

	if (!own || !here || !to)
		return XDP_ABORTED;
	previous = previous_of(own);
	for (int i = 0; i < 6; i++) {
		to->destination[i] = previous >> (8 * i);
		to->source[i] = here->mac[i];
	}
	return XDP_TX;
}
