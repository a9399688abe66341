// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The packet side of xdirector: balances TCP and UDP by direct return. A frame is decided on, counted and
 * acted upon, in this order and with one exit. What belongs to no service passes untouched. Adverts for our own virtual
 * routers are filtered; see vrrp.h.
 */
#include "maps.h"
#include "parse.h"
#include "service.h"
#include "flow.h"
#include "flood.h"
#include "load.h"
#include "guard.h"
#include "schedule.h"
#include "cap.h"
#include "forward.h"
#include "watch.h"
#include "rare.h"
#include "vrrp.h"
#include "redirect.h"

static __always_inline void trace_flow(const struct known_flow *flow, __u32 now)
{
	traced.flow = flow->place ? flow->state : 0;
	traced.now = now;
}

/* The next packet of a known flow; verdict of the flow's server. */
static __always_inline struct decision follow(const struct known_flow *flow, struct server *server, __u32 id,
					      const struct service *service, const struct packet *packet, __u64 now)
{
	if (is_dry) {
		trace_flow(flow, units(now));
		traced.why = WHY_FLOW;
		return send_to(server, server_of(flow->state));
	}
	if (touch_flow(flow, service, packet, units(now))) {
		if (closes(packet) && is_active(flow->state))
			add_load(server_of(flow->state), -1);
		if (service->persistence)
			keep_client(id, packet, flow->state);
	}
	return send_to(server, server_of(flow->state));
}

/* What a flow is by its first packet, whatever that says: it may be somebody's invention. */
static __always_inline __u32 first_phase(const struct packet *packet)
{
	return packet->protocol == PROTOCOL_UDP ? FLOW_UDP_FIRST : FLOW_OPENING;
}

/* A new flow that no server may have. */
static __always_inline struct decision refuse_flow(__u32 service, const struct packet *packet)
{
	count_refusal(service, REFUSED_FULL);
	note(why, WHY_NONE);
	return opens(packet) ? pass(VERDICT_PASS_REFUSED) : drop(DROP_FULL);
}

/* The first packet of a flow, or of a known one that begins anew. It has its turn only if it will be remembered. One in the
 * middle of a connection is scheduled too, unless its service says otherwise: after a change of MASTER, or when its real server
 * went down, the answer of the new one ends it at once instead of leaving the client to wait. It has no turn: its SYN may have
 * found no place. */
static __always_inline struct decision begin(const struct flow_hash *hash, const struct known_flow *flow, const struct found *found,
					     const struct service *service, const struct packet *packet, __u64 now)
{
	__u32 id = found->id;
	struct turn *turn = bpf_map_lookup_elem(&turns, &id);
	struct choice choice = {};
	struct decision decision;
	struct room room = {};
	__u64 state;
	int below;

	if (is_dry)
		trace_flow(flow, units(now));
	if (!begins(packet) && has_predecessor(found->router, packet->slot)) {
		decision = pass(VERDICT_PREVIOUS);
		decision.router = found->router;
		return decision;
	}
	if (packet->tcp_flags & TCP_RST)
		return drop(DROP_NO_FLOW);
	if (service->flags & SERVICE_LIMITED && begins(packet) && !admits_flow(id, &packet->source))
		return drop(DROP_RATE_NEW);
	if (!turn)
		return drop(DROP_NO_REAL_SERVER);
	if (!begins(packet) && service->flags & SERVICE_REFUSES && !was_flooded(service, turn, units(now)))
		return pass(VERDICT_PASS_REFUSED);
	if (flow->place)
		room = own_room(flow, hash);
	else if (may_store(service, turn, units(now))) {
		room = room_for(hash, units(now));
		count_new(turn, units(now));
	}
	if (service->persistence)
		choice = choice_of(clients_server(id, packet));
	if (!choice.id) {
		choice = next_in_ring(id, service, room.place && begins(packet) ? turn : 0, &packet->source, hash->spread);
		if (service->flags & SERVICE_CAPPED && begins(packet)) {
			below = server_below_cap(id, choice.start, choice.id, room.place != 0);
			if (below < 0)
				return refuse_flow(id, packet);
			choice = choice_of(below);
		}
	}
	if (!choice.server)
		return opens(packet) ? pass(VERDICT_PASS_REFUSED) : drop(DROP_NO_REAL_SERVER);

	decision = send_to(choice.server, choice.id);
	state = state_of(service, choice.id, choice.server->generation, first_phase(packet), units(now));
	decision.creates_flow = store_flow(hash, &room, state);
	if (decision.creates_flow && !is_dry)
		count_stored(&room, state);
	decision.unstored = !decision.creates_flow;
	if (service->persistence)
		bind_client(id, packet, choice.id, choice.server->generation);
	return decision;
}

static __always_inline struct decision decide(struct packet *packet)
{
	struct found found = {};
	struct service *service = find_service(packet, &found);
	struct known_flow flow;
	struct flow_hash hash;
	struct server *server;
	int given_on = 0;
	__u64 now;

	if (!service)
		return pass(VERDICT_PASS_NOT_OURS);
	note(service, found.id);
	if (!is_for_us(packet))
		return pass(VERDICT_PASS_OTHER_MAC);
	if (is_balanced(found.id, packet, &packet->source)) {
		given_on = !begins(packet) && !(service->flags & SERVICE_LOCAL) && is_predecessor(found.router);
		if (!given_on)
			return pass(VERDICT_PASS_BALANCED);
	}
	if (service->flags & SERVICE_LIMITED) {
		int refusal = refuses_packet(found.id, &packet->source);

		if (refusal >= 0)
			return drop((__u64)refusal & DROP_MASK);
	}

	now = bpf_jiffies64();
	hash = hash_of(packet);
	flow = find_flow(&hash, opens(packet), found.zero);
	if (flow.place && remaining(flow.state, units(now)) > 0 && !(opens(packet) && phase_of(flow.state) == FLOW_CLOSING)) {
		server = same_server(server_of(flow.state), generation_of(flow.state));
		if (server && !(opens(packet) && server->flags & SERVER_FAILED))
			return follow(&flow, server, found.id, service, packet, now);
	}
	return given_on ? drop(DROP_SECOND_CHANCE) : begin(&hash, &flow, &found, service, packet, now);
}

SEC("xdp.frags")
int xdirector(struct xdp_md *ctx)
{
	struct decision decision = pass(VERDICT_PASS_NOT_OURS);
	struct packet packet = {};
	enum kind kind = parse(ctx, &packet);
	__u32 outcome;

	if (kind == KIND_RARE) {
		outcome = judge_rare(ctx, &packet);
		if (outcome_kind(outcome) != OUTCOME_FLOW)
			return finish_rare(ctx, &packet, outcome);
		kind = KIND_FLOW;
	}
	if (kind == KIND_VRRP)
		decision = decide_advert(ctx, &packet);
	else if (kind == KIND_FLOW)
		decision = decide(&packet);
	if (packet.first_fragment)
		note_fragment(&packet, &decision);
	count(&decision, &packet);
	if (is_watched(WATCH_FRAMES) && kind == KIND_FLOW)
		show_frame(ctx, &packet, decision.verdict, decision.drop_reason, decision.server_id);
	return act(ctx, &decision, &packet);
}

struct clock {
	__u64 ticks;
};

/* Tells user space what time the flows are kept in. */
SEC("syscall")
int read_clock(struct clock *clock)
{
	clock->ticks = bpf_jiffies64();
	return 0;
}

struct ring_change {
	__u32 service; /* id */
	__u32 padding;
	__u64 lengths; /* the first two words of its ring */
};

/* Has a ring's other half used from now on. */
SEC("syscall")
int change_ring(struct ring_change *change)
{
	__u32 service = change->service, index = 0;
	void *ring = bpf_map_lookup_elem(&rings, &service);
	struct ring_line *line = ring ? bpf_map_lookup_elem(ring, &index) : 0;

	if (!line)
		return -1;
	*(volatile __u64 *)line = change->lengths;
	return 0;
}

char licence[] SEC("license") = "Dual BSD/GPL";
