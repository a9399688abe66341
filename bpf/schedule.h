/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which real server a new flow gets. */
#pragma once

#include "maps.h"
#include "flow.h"

volatile const __u32 ticks_per_second; /* set by the loader */

static __always_inline struct server *live_server(__u32 id)
{
	struct server *server = bpf_map_lookup_elem(&servers, &id);

	return server && server->flags & SERVER_LIVE ? server : 0;
}

/* The live server that was meant when its id had this generation; 0: it is gone. */
static __always_inline struct server *same_server(__u32 id, __u32 generation)
{
	struct server *server = live_server(id);

	return server && server->generation == generation ? server : 0;
}

/* The same on every director, since nothing secret is in it: the finalizer of MurmurHash3 (Appleby, 2011). */
static __always_inline __u64 hash_of_client(__be32 address)
{
	__u64 hash = address;

	hash ^= hash >> 33;
	hash *= 0xff51afd7ed558ccd;
	hash ^= hash >> 33;
	hash *= 0xc4ceb9fe1a85ec53;
	return hash ^ hash >> 33;
}

/* The id of the server that a new flow gets; 0: there is none. User space made the ring of live servers only, and swaps
 * it before a server goes. Without a turn a flow goes where its hash says, with all its packets. */
static __always_inline __u32 next_in_ring(const struct service *service, __be32 client,
					  const struct flow_hash *hash, int has_turn)
{
	__u32 id = service->id, index = 0, length;
	struct ring_line *line;
	__u64 *turn, place;
	void *ring;

	ring = bpf_map_lookup_elem(&rings, &id);
	if (!ring)
		return 0;
	line = bpf_map_lookup_elem(ring, &index);
	turn = bpf_map_lookup_elem(&turns, &id);
	if (!line || !turn)
		return 0;
	length = line->word[0];
	if (!length)
		return 0;
	if (service->flags & SERVICE_HASHES)
		place = hash_of_client(client);
	else if (has_turn)
		place = __sync_fetch_and_add(turn, 1);
	else
		place = hash->spread;
	place = place % length + 1;
	index = place / RING_LINE_WORDS;
	line = bpf_map_lookup_elem(ring, &index);
	return line ? line->word[place % RING_LINE_WORDS] : 0;
}

/* The id of the server that this client is bound to; 0: none. A server of weight 0 keeps its clients, as IPVS has it
 * by default (expire_quiescent_template=0); one that is down loses them. */
static __always_inline __u32 clients_server(const struct service *service, __be32 address, __u64 now)
{
	struct client_key key = {.service = service->id, .address = address};
	struct client *client = bpf_map_lookup_elem(&clients, &key);

	if (!client || (__s64)(now - client->expires) >= 0)
		return 0;
	return same_server(client->server, client->generation) ? client->server : 0;
}

static __always_inline void bind_client(const struct service *service, __be32 address, __u32 id, __u32 generation,
					__u64 now)
{
	struct client_key key = {.service = service->id, .address = address};
	struct client client = {
		.server = id,
		.generation = generation,
		.expires = now + (__u64)service->persistence * ticks_per_second,
	};

	bpf_map_update_elem(&clients, &key, &client, BPF_ANY);
}

/* An old flow of a client that has moved on must not pull it back. */
static __always_inline void keep_client(const struct service *service, __be32 address, __u64 flow, __u64 now)
{
	__u32 bound = clients_server(service, address, now);

	if (!bound || bound == server_of(flow))
		bind_client(service, address, server_of(flow), generation_of(flow), now);
}
