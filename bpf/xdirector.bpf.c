// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The packet side of xdirector: balances TCP and UDP over IPv4 by direct return. A frame is decided on, counted and
 * acted upon, in this order and with one exit. What belongs to no service passes untouched. Adverts for our own virtual
 * routers are filtered; see vrrp.h.
 */
#include "maps.h"
#include "parse.h"
#include "service.h"
#include "flow.h"
#include "schedule.h"
#include "forward.h"
#include "vrrp.h"

/* The next packet of a known flow; verdict of the flow's server. */
static __always_inline struct decision follow(const struct known_flow *flow, struct server *server,
					      const struct service *service, const struct packet *packet, __u64 now)
{
	if (touch_flow(flow, packet, units(now)) && service->persistence)
		keep_client(service, packet->source, flow->state, now);
	return send_to(server, server_of(flow->state));
}

/* What a flow is by its first packet. */
static __always_inline __u32 first_phase(const struct packet *packet)
{
	if (packet->protocol == PROTOCOL_UDP)
		return FLOW_UDP;
	if (closes(packet))
		return FLOW_CLOSING;
	return opens(packet) ? FLOW_OPENING : FLOW_OPEN;
}

/* The first packet of a flow, or of a known one that begins anew. It has its turn only if it will be remembered. One in the
 * middle of a connection is scheduled too: after a change of MASTER, or when its real server went down, the answer of the
 * new one ends it at once instead of leaving the client to wait. It has no turn: its SYN may have found no place. */
static __always_inline struct decision begin(const struct flow_hash *hash, const struct known_flow *flow,
					     const struct service *service, const struct packet *packet, __u64 now)
{
	struct decision decision;
	struct server *server = 0;
	struct room room;
	__u64 state;
	__u32 id = 0;

	if (packet->tcp_flags & TCP_RST)
		return drop(DROP_NO_FLOW);
	room = flow->place ? own_room(flow) : room_for(hash, units(now));
	if (service->persistence)
		id = clients_server(service, packet->source, now);
	if (!id)
		id = next_in_ring(service, packet->source, hash, room.place && begins(packet));
	if (id)
		server = live_server(id);
	if (!server)
		return opens(packet) ? pass(VERDICT_PASS_REFUSED) : drop(DROP_NO_REAL_SERVER);

	decision = send_to(server, id);
	state = state_of(id, server->generation, first_phase(packet), units(now));
	decision.creates_flow = store_flow(hash, &room, state);
	decision.unstored = !decision.creates_flow;
	if (service->persistence)
		bind_client(service, packet->source, id, server->generation, now);
	return decision;
}

static __always_inline struct decision decide(const struct packet *packet)
{
	struct service *service = find_service(packet);
	struct known_flow flow;
	struct flow_hash hash;
	struct server *server;
	__u64 now;

	if (!service)
		return pass(VERDICT_PASS_NOT_OURS);
	if (!is_for_us(packet))
		return pass(VERDICT_PASS_OTHER_MAC);
	if (is_balanced(service, packet))
		return pass(VERDICT_PASS_BALANCED);
	if (packet->first_fragment)
		return drop(DROP_FRAGMENT);

	now = bpf_jiffies64();
	hash = hash_of(packet);
	flow = find_flow(&hash);
	if (flow.place && remaining(flow.state, units(now)) > 0 && !(opens(packet) && phase_of(flow.state) == FLOW_CLOSING)) {
		server = same_server(server_of(flow.state), generation_of(flow.state));
		if (server)
			return follow(&flow, server, service, packet, now);
	}
	return begin(&hash, &flow, service, packet, now);
}

SEC("xdp")
int xdirector(struct xdp_md *ctx)
{
	struct decision decision = pass(VERDICT_PASS_NOT_OURS);
	struct packet packet = {};
	enum kind kind = parse(ctx, &packet);

	if (kind == KIND_VRRP)
		decision = decide_advert(ctx);
	else if (kind == KIND_FLOW)
		decision = decide(&packet);
	count(&decision, packet.bytes);
	return act(&decision, &packet);
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

char licence[] SEC("license") = "Dual BSD/GPL";
