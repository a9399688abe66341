/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Active flows of each server: every flow but those that are closing, as IPVS counts its active connections. A state changes by
 * compare-and-swap, so that each change is counted once. Those of an earlier owner of a server's id are not its own.
 */
#pragma once

#include "maps.h"
#include "flow.h"
#include "ring.h"

static __always_inline int is_active(__u64 state)
{
	return phase_of(state) != FLOW_CLOSING;
}

static __always_inline void add_load(__u32 server, __s64 flows)
{
	struct load *load = bpf_map_lookup_elem(&loads, &server);

	if (load)
		__sync_fetch_and_add(&load->active, flows);
}

/* A flow took the place of what was there. */
static __always_inline void count_stored(const struct room *before, __u64 state)
{
	__u32 id = server_of(before->state);
	struct server *server;

	add_load(server_of(state), 1);
	if (before->print == FLOW_FREE || !is_active(before->state))
		return;
	server = bpf_map_lookup_elem(&servers, &id);
	if (server && server->generation == generation_of(before->state))
		add_load(id, -1);
}

#define EACH_OF 16 /* so many servers or fewer are compared one by one; */
#define SAMPLES 8  /* of more, so many are drawn from the Maglev table, in which each is as often as its weight says */

/*
 * The id of the server with the fewest active flows for its weight; 0: there is none. IPVS looks at all of them: of many we see a
 * sample, which is known to come close ("the power of two choices", Mitzenmacher 1996). The turn decides between equals.
 */
__attribute__((noinline)) int least_loaded(__u32 service, __u64 turn, __u64 random)
{
	__u64 best_active = 0, best_weight = 0, best = 0;
	struct ring_view view;

	if (!look_at_ring(service, &view) || !view.table)
		return 0;
	for (__u32 i = 0; i < EACH_OF; i++) {
		struct load *load;
		__u64 place;
		__s64 active;
		__u32 id;

		if (i >= (view.turns <= EACH_OF ? view.turns : SAMPLES))
			break;
		if (view.turns <= EACH_OF) {
			place = (turn + i) % view.turns;
		} else {
			random = random * 6364136223846793005ULL + 1442695040888963407ULL; /* Knuth's MMIX */
			place = (random >> 32) % view.table + view.turns;
		}
		id = server_at(&view, place);
		load = bpf_map_lookup_elem(&loads, &id);
		if (!load || !load->weight)
			continue;
		active = *(volatile __s64 *)&load->active;
		if (active < 0)
			active = 0;
		if (load->cap && active >= load->cap)
			continue;
		if (best && (__u64)active * best_weight >= best_active * load->weight)
			continue;
		best = id;
		best_active = active;
		best_weight = load->weight;
	}
	return best;
}
