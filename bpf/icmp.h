/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Errors about a packet that a real server has sent: they quote its beginning, which says whose flow it belongs to. The real
 * server learns of it as if it had the virtual address alone. Everything else of ICMP is for the box itself.
 */
#pragma once

#include "maps.h"
#include "parse.h"
#include "headers.h"
#include "outcome.h"
#include "service.h"
#include "flow.h"
#include "flood.h"
#include "load.h"
#include "schedule.h"
#include "forward.h"

struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 about; /* the type says what */
};

/* Destination unreachable, time exceeded, parameter problem; RFC 792. In IPv6 packet too big too; RFC 4443. */
static __always_inline int is_error(__u8 family, __u8 type)
{
	if (family == 4)
		return type == 3 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

/* Where the flow goes that this packet belongs to. Nothing about it changes: anybody can invent an error. Without a flow its
 * packets go where the service says, and so does this one; it is not stored and has no turn. */
__attribute__((noinline)) int server_of_error(const struct packet *packet, __u32 id, const struct address *sender)
{
	struct settings *settings_now;
	struct service *service;
	__u64 now = bpf_jiffies64();
	struct choice choice = {};
	struct known_flow flow;
	__u32 first = 0;
	struct flow_hash hash;
	struct turn *turn;

	settings_now = bpf_map_lookup_elem(&settings, &first);
	if (!settings_now || !sender || !packet)
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_NOT_OURS);
	note(service, id);
	if (!is_for_us(packet))
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_OTHER_MAC);
	if (is_balanced(id, packet, sender))
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_BALANCED);
	hash = hash_of(packet);
	flow = find_flow(&hash, 0, settings_now->zero);
	note(flow, flow.place ? flow.state : 0);
	note(now, units(now));
	if (flow.place && remaining(flow.state, units(now)) > 0 && same_server(server_of(flow.state), generation_of(flow.state))) {
		note(why, WHY_FLOW);
		return outcome_of(OUTCOME_SERVER, server_of(flow.state));
	}
	service = bpf_map_lookup_elem(&services, &id);
	turn = bpf_map_lookup_elem(&turns, &id);
	if (!service || !turn || (service->flags & SERVICE_REFUSES && !was_flooded(service, turn, units(now))))
		return outcome_of(OUTCOME_DROP, DROP_NO_FLOW);
	if (service->persistence)
		choice = choice_of(clients_server(id, packet));
	if (!choice.id)
		choice = next_in_ring(id, service, 0, &packet->source, hash.spread);
	if (!choice.server)
		return outcome_of(OUTCOME_DROP, DROP_NO_REAL_SERVER);
	return outcome_of(OUTCOME_SERVER, choice.id);
}

/* Outcome for a packet of ICMP. */
static __always_inline __u32 judge_icmp(struct xdp_md *ctx, struct ip_packets *both, struct packet *packet)
{
	const __u32 nothing = outcome_of(OUTCOME_VERDICT, VERDICT_PASS_NOT_OURS);
	struct ip_packet *ip = &both->outer, *quoted = &both->quoted;
	struct icmp_header icmp;
	struct ports ports;
	__u32 id;

	if (ip->fragment || !load(ctx, ip, ip->at, &icmp, sizeof(icmp)) || !is_error(ip->family, icmp.type))
		return nothing;
	__builtin_memset(quoted, 0, sizeof(*quoted));
	quoted->family = ip->family;
	quoted->end = ip->end;
	if (read_ip(ctx, ip->at + sizeof(icmp), quoted) != IP_READ || quoted->offset || !has_ports(quoted->protocol))
		return nothing;
	if (!load(ctx, quoted, quoted->at, &ports, sizeof(ports)))
		return nothing;
	/* Who sent the packet gets the error. */
	if (!equal_addresses(&quoted->source, &ip->destination))
		return nothing;
	packet->source = quoted->destination;
	packet->destination = quoted->source;
	packet->source_port = ports.destination;
	packet->destination_port = ports.source;
	packet->protocol = quoted->protocol;
	id = service_of(packet);
	return id ? server_of_error(packet, id, &ip->source) : nothing;
}
