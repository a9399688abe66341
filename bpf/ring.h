/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Rings of real servers, in which user space has put those alone that can take a flow; see maps.h. */
#pragma once

#include "maps.h"
#include "dry.h"

/* A ring as it is now. */
struct ring_view {
	void *ring;
	__u32 turns, table; /* places */
	__u32 first;	    /* place of the half in use */
};

/* False: it is empty. */
static __always_inline int look_at_ring(__u32 service, struct ring_view *view)
{
	struct ring_line *line;
	__u32 index = 0;
	__u64 lengths;

	view->ring = bpf_map_lookup_elem(&rings, &service);
	line = view->ring ? bpf_map_lookup_elem(view->ring, &index) : 0;
	if (!line)
		return 0;
	lengths = *(volatile __u64 *)line; /* both at once */
	view->turns = lengths & (RING_SECOND - 1);
	view->table = lengths >> 32;
	view->first = RING_LINE_WORDS + (lengths & RING_SECOND ? line->word[RING_HALF] : 0);
	return view->turns != 0;
}

static __always_inline __u32 server_at(const struct ring_view *view, __u32 place)
{
	__u32 word = view->first + place, index = word / RING_LINE_WORDS;
	struct ring_line *line = bpf_map_lookup_elem(view->ring, &index);

	return line ? line->word[word % RING_LINE_WORDS] : 0;
}

/* The id of a server; 0: there is none. With a turn it is of the ring, else of the table if there is one. */
__attribute__((noinline)) int server_in_turn(__u32 service, __u64 turn, __u32 in_turn)
{
	__u32 first = 0, places;
	struct ring_view view;

	if (!look_at_ring(service, &view))
		return 0;
	places = view.turns;
	if (!in_turn && view.table) {
		first = view.turns;
		places = view.table;
	}
	note(place, turn % places);
	note(places, places);
	return server_at(&view, first + turn % places);
}
