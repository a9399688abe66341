/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is done with a frame once it is decided, and how it is counted. */
#pragma once

#include "maps.h"
#include "parse.h"
#include "service.h"

struct decision {
	__u32 verdict;
	__u32 drop_reason;     /* with VERDICT_DROP */
	__u32 server_id;       /* 0: no real server has to do with it */
	__u16 creates_flow;
	__u16 unstored;	       /* a new flow that found no place */
	struct server *server; /* with VERDICT_TX, VERDICT_REDIRECT, VERDICT_PASS_LOCAL */
};

static __always_inline struct decision pass(__u32 verdict)
{
	struct decision decision = {.verdict = verdict};

	return decision;
}

static __always_inline struct decision drop(__u32 reason)
{
	struct decision decision = {.verdict = VERDICT_DROP, .drop_reason = reason};

	return decision;
}

static __always_inline struct decision send_to(struct server *server, __u32 id)
{
	struct decision decision = {.server = server, .server_id = id};

	if (server->flags & SERVER_LOCAL)
		decision.verdict = VERDICT_PASS_LOCAL;
	else if (server->interface == own_interface)
		decision.verdict = VERDICT_TX;
	else
		decision.verdict = VERDICT_REDIRECT;
	return decision;
}

static __always_inline void count(const struct decision *decision, __u64 bytes)
{
	struct interface_counters *frame;
	struct server_counters *sent;
	__u32 slot = own_slot;

	frame = bpf_map_lookup_elem(&frames, &slot);
	if (frame && decision->verdict < VERDICT_COUNT)
		frame->verdicts[decision->verdict]++;
	if (frame && decision->verdict == VERDICT_DROP && decision->drop_reason < DROP_COUNT)
		frame->drops[decision->drop_reason]++;
	if (frame && decision->unstored)
		frame->unstored++;

	if (!decision->server_id)
		return;
	sent = bpf_map_lookup_elem(&traffic, &decision->server_id);
	if (!sent)
		return;
	sent->packets++;
	sent->bytes += bytes;
	sent->flows_created += decision->creates_flow;
}

/* Both addresses in 2-byte steps: that much alignment a frame has on every machine. */
static __always_inline void rewrite(struct ethernet_header *ethernet, const struct server *server)
{
	const __u16 *from = (const __u16 *)server->destination;
	__u16 *to = (__u16 *)ethernet;

	for (int i = 0; i < 6; i++)
		to[i] = from[i];
}

static __always_inline int act(const struct decision *decision, const struct packet *packet)
{
	switch (decision->verdict) {
	case VERDICT_TX:
		rewrite(packet->ethernet, decision->server);
		return XDP_TX;
	case VERDICT_REDIRECT:
		rewrite(packet->ethernet, decision->server);
		return bpf_redirect(decision->server->interface, 0);
	case VERDICT_DROP:
		return XDP_DROP;
	default:
		return XDP_PASS;
	}
}
