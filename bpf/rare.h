/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What few packets are: fragments, errors of ICMP, IPv6 with more headers. Nobody else pays for them. */
#pragma once

#include "maps.h"
#include "parse.h"
#include "headers.h"
#include "fragment.h"
#include "icmp.h"
#include "guard.h"
#include "watch.h"

/* Outcome for a packet to one of our virtual addresses, if it has to be dropped whatever it is for. */
__attribute__((noinline)) int drop_ours(const struct packet *packet, __u32 reason)
{
	if (!packet)
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_NOT_OURS);
	if (!is_for_us(packet))
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_OTHER_MAC);
	if (is_balanced(0, packet, &packet->source))
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_BALANCED);
	return outcome_of(OUTCOME_DROP, reason);
}

static __always_inline __u32 judge_endless(const struct packet *packet)
{
	return is_virtual(packet) ? drop_ours(packet, DROP_HEADERS) : outcome_of(OUTCOME_VERDICT, VERDICT_PASS_NOT_OURS);
}

static __always_inline __u32 judge_later(const struct packet *packet, const struct ip_packet *ip)
{
	if (!(has_ports(ip->protocol) || is_extension(ip->protocol)) || !is_virtual(packet))
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_NOT_OURS);
	return follow_first(packet, ip);
}

/* The header of TCP or UDP is not wholly in a first fragment. Its ports may say that it is none of ours. */
static __always_inline __u32 judge_short(struct xdp_md *ctx, const struct ip_packet *ip, struct packet *packet)
{
	struct ports ports;
	int ours;

	if (load(ctx, ip, ip->at, &ports, sizeof(ports))) {
		packet->destination_port = ports.destination;
		ours = service_of(packet);
	} else {
		ours = is_virtual(packet);
	}
	if (!ours)
		return outcome_of(OUTCOME_VERDICT, VERDICT_PASS_NOT_OURS);
	return drop_ours(packet, DROP_FRAGMENT_SHORT);
}

/* Completes the packet if it is one of TCP or UDP. */
static __always_inline int read_ports(struct xdp_md *ctx, const struct ip_packet *ip, struct packet *packet)
{
	struct tcp_header tcp = {};

	if (!load(ctx, ip, ip->at, &tcp, packet->protocol == PROTOCOL_TCP ? sizeof(tcp) : sizeof(struct udp_header)))
		return 0;
	packet->source_port = tcp.source_port;
	packet->destination_port = tcp.destination_port;
	packet->tcp_flags = packet->protocol == PROTOCOL_TCP ? tcp.flags : 0;
	return 1;
}

/* Outcome for a packet of KIND_RARE. */
__attribute__((noinline)) int judge_rare(struct xdp_md *ctx, struct packet *packet)
{
	const __u32 nothing = outcome_of(OUTCOME_VERDICT, VERDICT_PASS_NOT_OURS);
	struct ip_packets *both = packets_at_hand();
	struct ip_packet *ip;
	int reading;

	if (!both || !packet)
		return nothing;
	ip = &both->outer;
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->family = packet->family;
	ip->end = bpf_xdp_get_buff_len(ctx);
	reading = read_ip(ctx, sizeof(struct ethernet_header) + (packet->tagged ? sizeof(struct vlan_tag) : 0), ip);
	if (reading == IP_UNREADABLE)
		return nothing;
	packet->source = ip->source;
	packet->destination = ip->destination;
	packet->protocol = ip->protocol;
	if (reading == IP_ENDLESS)
		return judge_endless(packet);
	if (ip->offset)
		return judge_later(packet, ip);
	packet->first_fragment = ip->fragment;
	packet->fragment_id = ip->id;
	if (ip->protocol == (ip->family == 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6))
		return judge_icmp(ctx, both, packet);
	if (has_ports(ip->protocol) && !read_ports(ctx, ip, packet))
		return ip->fragment ? judge_short(ctx, ip, packet) : nothing;
	return has_ports(ip->protocol) ? outcome_of(OUTCOME_FLOW, 0) : nothing;
}

/* The reason to drop what would be sent, as with every other packet of that client; negative: there is none. */
static __always_inline int refuses_rare(__u32 id, const struct packet *packet)
{
	struct service *service = bpf_map_lookup_elem(&services, &id);

	return service && service->flags & SERVICE_LIMITED ? refuses_packet(id, &packet->source) : -1;
}

static __always_inline void count_rare(struct xdp_md *ctx, const struct decision *decision, const struct packet *packet)
{
	count(decision, packet);
	if (is_watched(WATCH_FRAMES) && has_ports(packet->protocol))
		show_frame(ctx, packet, decision->verdict, decision->drop_reason, decision->server_id);
}

/* Counts and does what the outcome says, if it decides; answers for the program. */
__attribute__((noinline)) int finish_rare(struct xdp_md *ctx, const struct packet *packet, __u32 outcome)
{
	struct decision decision = pass(VERDICT_PASS_NOT_OURS);
	__u32 value = outcome_value(outcome);
	struct server *server;
	int refusal;

	if (!packet)
		return XDP_PASS;
	switch (outcome_kind(outcome)) {
	case OUTCOME_SERVER:
		server = bpf_map_lookup_elem(&servers, &value);
		if (!server)
			break;
		refusal = refuses_rare(server->service, packet);
		if (refusal >= 0) {
			decision = drop((__u64)refusal & DROP_MASK);
			break;
		}
		decision = send_to(server, value);
		count_rare(ctx, &decision, packet);
		return act(ctx, &decision, packet);
	case OUTCOME_DROP:
		decision = drop(value);
		break;
	default:
		decision = pass(value);
		if (packet->first_fragment)
			note_fragment(packet, &decision);
	}
	count_rare(ctx, &decision, packet);
	return decision.verdict == VERDICT_DROP ? XDP_DROP : XDP_PASS;
}
