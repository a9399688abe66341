/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Known flows. Time is counted in the kernel's ticks, which cost nothing to read. */
#pragma once

#include "maps.h"
#include "parse.h"

/* Set by the loader; in ticks. */
volatile const __u32 ticks_per_second;
volatile const __u64 tcp_timeout;
volatile const __u64 closing_timeout;
volatile const __u64 udp_timeout;

static __always_inline struct flow_key key_of(const struct packet *packet)
{
	struct flow_key key = {
		.source = packet->source,
		.destination = packet->destination,
		.source_port = packet->source_port,
		.destination_port = packet->destination_port,
		.protocol = packet->protocol,
	};

	return key;
}

/* Signed: another CPU may have seen the flow a tick later than our reading of the clock. */
static __always_inline __s64 idle(const struct flow *flow, __u64 now)
{
	return (__s64)(now - flow->last_seen);
}

static __always_inline int has_expired(const struct flow *flow, __u8 protocol, __u64 now)
{
	__u64 timeout = tcp_timeout;

	if (protocol == PROTOCOL_UDP)
		timeout = udp_timeout;
	else if (flow->flags & FLOW_CLOSING)
		timeout = closing_timeout;
	return idle(flow, now) >= (__s64)timeout;
}

/* The flow that a packet belongs to; 0: none, or it ended and the packet begins another. */
static __always_inline struct flow *find_flow(const struct flow_key *key, const struct packet *packet, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	if (!flow || has_expired(flow, packet->protocol, now))
		return 0;
	if (opens(packet) && flow->flags & FLOW_CLOSING)
		return 0;
	return flow;
}

/* False: the table could not take the flow. */
static __always_inline int store_flow(const struct flow_key *key, const struct packet *packet, __u32 id,
				      __u32 generation, __u64 now)
{
	struct flow flow = {
		.server = id,
		.generation = generation,
		.last_seen = now,
		.flags = closes(packet) ? FLOW_CLOSING : 0,
	};

	return bpf_map_update_elem(&flows, key, &flow, BPF_ANY) == 0;
}
