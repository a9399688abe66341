/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A flood of first packets must not write: that is what costs, and what would push out the young flows of others. A service
 * stores so many flows in a unit of time and no more; what comes beyond that goes where the hash of its client says, as do all
 * its packets. SYNs and others share the budget, since a director never sees that a handshake was completed.
 */
#pragma once

#include "maps.h"
#include "dry.h"
#include "flow.h"

static __always_inline int is_used_up(const struct service *service, __u64 stored, __u32 now)
{
	return stored >> 32 == now && (__u32)stored >= service->new_flows;
}

static __always_inline int may_store(const struct service *service, struct turn *turn, __u32 now)
{
	__u64 stored = look_at(turn->stored);

	if (is_used_up(service, stored, now)) {
		note(flooded, 1);
		if (!is_dry && turn->flooded != now + 1)
			turn->flooded = now + 1;
		return 0;
	}
	return 1;
}

/* After the search for a place: an atomic write holds up every read that follows. */
static __always_inline void count_new(struct turn *turn, __u32 now)
{
	__u64 stored = look_at(turn->stored);

	if (is_dry)
		return;
	/* Whoever is second in a unit of time counts on from the first. */
	if (stored >> 32 == now || !__sync_bool_compare_and_swap(&turn->stored, stored, (__u64)now << 32 | 1))
		__sync_fetch_and_add(&turn->stored, 1);
}

/* Flows that found no place may still be alive: as long as a first packet would be remembered. */
static __always_inline int was_flooded(const struct service *service, const struct turn *turn, __u32 now)
{
	return turn->flooded && now + 1 - (__u32)turn->flooded <= service->timeouts[FLOW_OPENING];
}
