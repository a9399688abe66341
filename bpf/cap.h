/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A real server that has as many active flows as it may gets no new ones. CPUs that look at the same moment may each give it its
 * last one. */
#pragma once

#include "maps.h"
#include "dry.h"
#include "ring.h"
#include "schedule.h"

#define CAP_PROBES 64

static __always_inline int is_at_cap(__u32 server)
{
	struct load *load = bpf_map_lookup_elem(&loads, &server);

	return load && load->cap && *(volatile __s64 *)&load->active >= (__s64)load->cap;
}

/* The id of the server that a new flow gets: the chosen one, or the first one behind the start, in the order of the ring, that may
 * have another flow. 0: the ring is empty; negative: of as many as we look at there is none. What isn't stored must go where its
 * next packet goes: to the chosen one or nowhere. */
__attribute__((noinline)) int server_below_cap(__u32 service, __u64 start, __u32 chosen, __u32 stored)
{
	struct ring_view view;

	if (chosen && !is_at_cap(chosen))
		return chosen;
	if (!look_at_ring(service, &view))
		return 0;
	for (__u32 i = 1; i <= CAP_PROBES; i++) {
		__u64 place = (start + i) % view.turns;
		__u32 id;

		if (!stored)
			break;
		id = server_at(&view, place);
		if (!is_at_cap(id) && live_server(id)) {
			note(why, WHY_ROOM);
			note(place, place);
			note(places, view.turns);
			return id;
		}
		if (i >= view.turns)
			break;
	}
	return -1;
}
