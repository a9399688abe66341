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

/* The list of a service's servers, see ring_word, and the look for one of them. */
struct listed {
	struct ring_view view;
	__u32 service; /* id */
	__u32 list;    /* place of the first one */
	__u32 count;
	__u32 start;
	__u32 found; /* place in the list, plus one; 0: there is none */
	__u32 id;
};

/* A packet may be here while user space goes from a ring without a list to one with it, or back: then what it takes for the list
 * may be anything. */
static long look_at_listed(__u32 n, struct listed *all)
{
	__u32 place = (all->start + n) % all->count, id = server_at(&all->view, all->list + place);
	struct server *server = live_server(id);

	if (!server || server->service != all->service || is_at_cap(id))
		return 0;
	all->found = place + 1;
	all->id = id;
	return 1;
}

/* The id of one of all servers that may have another flow; 0: there is none. */
static __always_inline __u32 find_listed(__u32 service, __u64 start, const struct ring_view *view)
{
	struct listed all = {.view = *view, .service = service, .list = view->turns + view->table + 1};

	all.count = server_at(view, all.list - 1);
	if (!all.count || all.count > SERVERS_MAX)
		return 0;
	all.start = start % all.count;
	bpf_loop(all.count, look_at_listed, &all, 0);
	if (!all.found)
		return 0;
	note(why, WHY_ROOM);
	note(place, all.found - 1);
	note(places, all.count);
	return all.id;
}

/* The id of the server that a new flow gets: the chosen one, or the first one behind the start, in the order of the ring, that may
 * have another flow, or else any one. 0: the ring is empty; negative: there is none. What isn't stored must go where its next packet
 * goes: to the chosen one or nowhere. */
__attribute__((noinline)) int server_below_cap(__u32 service, __u64 start, __u32 chosen, __u32 stored)
{
	struct ring_view view;
	__u32 id;

	if (chosen && !is_at_cap(chosen))
		return chosen;
	if (!look_at_ring(service, &view))
		return 0;
	if (!stored)
		return -1;
	for (__u32 i = 1; i <= CAP_PROBES; i++) {
		__u64 place = (start + i) % view.turns;

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
	id = find_listed(service, start, &view);
	return id ? id : -1;
}
