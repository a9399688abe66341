/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is done with a frame once it is decided, and how it is counted. */
#pragma once

#include "maps.h"
#include "parse.h"
#include "service.h"
#include "chance.h"
#include "dry.h"

struct decision {
	__u32 verdict;
	__u32 drop_reason;     /* with VERDICT_DROP */
	__u32 server_id;       /* 0: no real server has to do with it */
	__u16 creates_flow;
	__u16 unstored;	       /* a new flow that found no place */
	struct server *server; /* with VERDICT_TX, VERDICT_REDIRECT, VERDICT_PASS_LOCAL */
	__u32 router;	       /* slot, with VERDICT_PREVIOUS */
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

static __always_inline void count(const struct decision *decision, const struct packet *packet)
{
	struct interface_counters *frame;
	struct server_counters *sent;
	__u32 slot = packet->slot, place;

	if (is_dry) {
		traced.verdict = decision->verdict;
		traced.drop_reason = decision->drop_reason;
		traced.server = decision->server_id;
		traced.interface = slot + 1;
		traced.stored = decision->creates_flow;
		return;
	}
	frame = bpf_map_lookup_elem(&frames, &slot);
	if (frame && decision->verdict < VERDICT_COUNT) {
		frame->verdicts[decision->verdict]++;
		if (decision->verdict == VERDICT_DROP && decision->drop_reason < DROP_COUNT)
			frame->drops[decision->drop_reason]++;
		if (decision->unstored)
			frame->unstored++;
	}
	if (!decision->server_id)
		return;
	place = bpf_get_smp_processor_id() * SERVERS_MAX + decision->server_id;
	sent = bpf_map_lookup_elem(&traffic, &place);
	if (!sent)
		return;
	sent->packets++;
	sent->bytes += packet->bytes;
	sent->flows_created += decision->creates_flow;
}

/* Makes room for a tag, or takes it out, so that the frame has the one of the server's network. 0: that can't be done. The addresses are
 * written after it. */
static __noinline int retag(struct xdp_md *ctx, __u32 vlan, __u32 tagged)
{
	struct tagged_addresses *start;

	if (vlan && !tagged && bpf_xdp_adjust_head(ctx, -(int)sizeof(struct vlan_tag)))
		return 0;
	if (!vlan && tagged && bpf_xdp_adjust_head(ctx, sizeof(struct vlan_tag)))
		return 0;
	if (!vlan)
		return 1;
	start = (void *)(long)ctx->data;
	if ((void *)(start + 1) > (void *)(long)ctx->data_end)
		return 0;
	start->control = tagged ? (start->control & bpf_htons(~VLAN_ID_MASK & 0xffff)) | bpf_htons(vlan) : bpf_htons(vlan);
	start->protocol = bpf_htons(ETHERTYPE_VLAN);
	return 1;
}

static __always_inline int rewrite(struct xdp_md *ctx, const struct server *server, const struct packet *packet)
{
	struct cursor cursor;
	void *to;

	if ((packet->tagged | server->vlan) && !retag(ctx, server->vlan, packet->tagged))
		return 0;
	cursor.at = (void *)(long)ctx->data;
	cursor.end = (void *)(long)ctx->data_end;
	to = take(&cursor, sizeof(struct ethernet_header));
	if (!to)
		return 0;
	copy_macs(to, server->destination);
	return 1;
}

static __always_inline int act(struct xdp_md *ctx, const struct decision *decision, const struct packet *packet)
{
	switch (decision->verdict) {
	case VERDICT_TX:
		return rewrite(ctx, decision->server, packet) ? XDP_TX : XDP_ABORTED;
	case VERDICT_REDIRECT:
		return rewrite(ctx, decision->server, packet) ? bpf_redirect(decision->server->interface, 0) : XDP_ABORTED;
	case VERDICT_PREVIOUS:
		return give_on(ctx, decision->router, packet->slot);
	case VERDICT_DROP:
		return XDP_DROP;
	default:
		return XDP_PASS;
	}
}
