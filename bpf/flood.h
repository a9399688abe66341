/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A flood of first packets must not write: that is what costs, and what would push out the young flows of others. A service
 * stores so many flows in a unit of time and no more; what comes beyond that goes where the hash of its client says, as do all
 * its packets. SYNs and others share the budget, since a director never sees that a handshake was completed.
 */
#pragma once

#include "maps.h"
#include "dry.h"

static __always_inline int may_store(const struct service *service, struct turn *turn, __u32 now)
{
	__u64 stored = *(volatile __u64 *)&turn->stored;

	if (is_dry) {
		traced.flooded = stored >> 32 == now && (__u32)stored >= service->new_flows;
		return !traced.flooded;
	}
	if (stored >> 32 != now) {
		/* Whoever is second counts on from the first. */
		if (__sync_bool_compare_and_swap(&turn->stored, stored, (__u64)now << 32 | 1))
			return 1;
	} else if ((__u32)stored >= service->new_flows) {
		if (turn->flooded != now + 1)
			turn->flooded = now + 1;
		return 0;
	}
	__sync_fetch_and_add(&turn->stored, 1);
	return 1;
}

/* Flows that found no place may still be alive: as long as a first packet would be remembered. */
static __always_inline int was_flooded(const struct service *service, const struct turn *turn, __u32 now)
{
	return turn->flooded && now + 1 - (__u32)turn->flooded <= service->timeouts[FLOW_OPENING];
}
