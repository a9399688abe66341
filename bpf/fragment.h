/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fragments. The first one has the ports and is handled as the packet that it begins. What was done with it is noted for
 * 30 seconds, and is done with the others too, whatever they say of themselves: they can't go anywhere else.
 */
#pragma once

#include "maps.h"
#include "parse.h"
#include "headers.h"
#include "outcome.h"
#include "service.h"
#include "schedule.h"
#include "forward.h"

#define FRAGMENT_SECONDS 30

static __always_inline struct fragment_key fragment_key_of(const struct packet *packet, __be32 id)
{
	struct fragment_key key = {
		.source = packet->source,
		.destination = packet->destination,
		.id = id,
		.family = packet->family,
		.protocol = packet->family == 4 ? packet->protocol : 0,
	};

	return key;
}

/* Notes what was done with a first fragment. One of another packet may have had the same id a while ago. */
__attribute__((noinline)) int note_first(const struct packet *packet, __u32 outcome)
{
	struct fragment_key key;
	struct fragment value = {.outcome = outcome};
	struct server *server;
	__u32 id;

	if (!packet || is_dry)
		return 0;
	if (outcome_kind(outcome) == OUTCOME_SERVER) {
		id = outcome_value(outcome);
		server = bpf_map_lookup_elem(&servers, &id);
		if (!server)
			return 0;
		value.generation = server->generation;
	}
	value.expires = bpf_jiffies64() + FRAGMENT_SECONDS * ticks_per_second;
	key = fragment_key_of(packet, packet->fragment_id);
	return bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

/* What was dropped needs no note: nobody can make a packet of its other parts. What the local stack got, the others follow there.
 * What the director before us got is not worth a note: TCP avoids fragments, and sends again. */
static __always_inline void note_fragment(const struct packet *packet, const struct decision *decision)
{
	if (decision->server_id)
		note_first(packet, outcome_of(OUTCOME_SERVER, decision->server_id));
	else if (decision->verdict == VERDICT_PASS_BALANCED || decision->verdict == VERDICT_PASS_REFUSED ||
		 (decision->verdict == VERDICT_PASS_NOT_OURS && is_virtual(packet)))
		note_first(packet, outcome_of(OUTCOME_VERDICT, decision->verdict));
}

/* Outcome for a fragment that is not the first one, of a packet to a virtual address. */
__attribute__((noinline)) int follow_first(const struct packet *packet, const struct ip_packet *ip)
{
	struct fragment_key key;
	struct server *server = 0;
	struct fragment *first;
	__u32 service = 0;

	if (!packet || !ip)
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_NOT_OURS);
	key = fragment_key_of(packet, ip->id);
	if (!is_for_us(packet))
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_OTHER_MAC);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (first && (__s64)(bpf_jiffies64() - first->expires) >= 0)
		first = 0;
	if (first && outcome_kind(first->outcome) == OUTCOME_SERVER) {
		server = same_server(outcome_value(first->outcome), first->generation);
		service = server ? server->service : 0;
	}
	if (is_balanced(service, packet, &packet->source))
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_BALANCED);
	if (!first || (!server && outcome_kind(first->outcome) == OUTCOME_SERVER))
		return outcome_of(OUTCOME_DROP, DROP_FRAGMENT);
	/* It would overwrite the header by which its first one was judged (RFC 1858, 3128). */
	if (packet->protocol == PROTOCOL_TCP && ip->offset < sizeof(struct tcp_header))
		return outcome_of(OUTCOME_DROP, DROP_FRAGMENT_SHORT);
	return first->outcome;
}
