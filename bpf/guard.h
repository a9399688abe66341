/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a service takes from its clients. Functions of their own: packets of services without limits never come here, and the
 * verifier looks at them once. */
#pragma once

#include "maps.h"
#include "access.h"
#include "rate.h"
#include "dry.h"

static __always_inline void count_refusal(__u32 service, enum refusal reason)
{
	struct refusals *refused;

	if (is_dry)
		return;
	refused = bpf_map_lookup_elem(&refusals, &service);
	if (refused)
		refused->by_reason[reason]++;
}

/* The reason to drop the packet; negative: there is none. */
__attribute__((noinline)) int refuses_packet(__u32 service, const struct address *client)
{
	struct limit *limit = bpf_map_lookup_elem(&limits, &service);

	if (!limit || !client)
		return -1;
	if (limit->list && is_denied(limit->list, client)) {
		count_refusal(service, REFUSED_DENIED);
		return DROP_DENIED;
	}
	if (!is_in_rate(service, limit, client, RATE_PACKETS)) {
		count_refusal(service, REFUSED_RATE_PACKETS);
		return DROP_RATE_PACKETS;
	}
	return -1;
}

__attribute__((noinline)) int admits_flow(__u32 service, const struct address *client)
{
	struct limit *limit = bpf_map_lookup_elem(&limits, &service);

	if (!limit || !client || is_in_rate(service, limit, client, RATE_NEW))
		return 1;
	count_refusal(service, REFUSED_RATE_NEW);
	return 0;
}
