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
static __always_inline struct decision follow(struct flow *flow, struct server *server, const struct service *service,
					      const struct packet *packet, __u64 now)
{
	if (closes(packet) && !(flow->flags & FLOW_CLOSING))
		flow->flags |= FLOW_CLOSING;
	/* Once a second is enough for ages, and keeps the cache line shared between CPUs. */
	if (idle(flow, now) >= ticks_per_second) {
		flow->last_seen = now;
		if (service->persistence)
			keep_client(service, packet->source, flow, now);
	}
	return send_to(server, flow->server);
}

/* The first packet of a flow. One in the middle of a connection is scheduled too: after a change of MASTER, or when
 * its real server went down, the answer of the new one ends it at once instead of leaving the client to wait. */
static __always_inline struct decision begin(const struct flow_key *key, const struct service *service,
					     const struct packet *packet, __u64 now)
{
	struct decision decision;
	struct server *server = 0;
	__u32 id = 0;

	if (packet->tcp_flags & TCP_RST)
		return drop(DROP_NO_FLOW);
	if (service->persistence)
		id = clients_server(service, packet->source, now);
	if (!id)
		id = next_in_ring(service);
	if (id)
		server = live_server(id);
	if (!server)
		return opens(packet) ? pass(VERDICT_PASS_REFUSED) : drop(DROP_NO_REAL_SERVER);

	decision = send_to(server, id);
	decision.creates_flow = store_flow(key, packet, id, server->generation, now);
	if (service->persistence)
		bind_client(service, packet->source, id, server->generation, now);
	return decision;
}

static __always_inline struct decision decide(const struct packet *packet)
{
	struct service *service = find_service(packet);
	struct server *server;
	struct flow_key key;
	struct flow *flow;
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
	key = key_of(packet);
	flow = find_flow(&key, packet, now);
	if (flow) {
		server = live_server(flow->server);
		if (server && server->generation == flow->generation)
			return follow(flow, server, service, packet, now);
	}
	return begin(&key, service, packet, now);
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
