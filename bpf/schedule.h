/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which real server a new flow gets. */
#pragma once

#include "maps.h"
#include "flow.h"
#include "load.h"
#include "dry.h"
#include "ring.h"

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
static __always_inline __u64 mixed(__u64 hash)
{
	hash ^= hash >> 33;
	hash *= 0xff51afd7ed558ccd;
	hash ^= hash >> 33;
	hash *= 0xc4ceb9fe1a85ec53;
	return hash ^ hash >> 33;
}

static __always_inline __u64 hash_of_client(const struct address *client)
{
	const __u32 *word = client->word;
	__u64 upper = word[2] | (__u64)word[3] << 32;
	__u64 lower = word[0] | (__u64)word[1] << 32;

	return mixed(upper ? mixed(upper) ^ lower : lower);
}

/* The number of a turn, which no other flow gets; a dry run leaves it to the next one. */
static __always_inline __u64 take_place(struct turn *turn)
{
	return is_dry ? look_at(turn->next) : __sync_fetch_and_add(&turn->next, 1);
}

/* The server that a new flow gets. */
struct choice {
	struct server *server; /* 0: there is none */
	__u32 id;
	__u64 start; /* the turn or the hash by which the ring gave it */
};

static __always_inline struct choice choice_of(__u32 id)
{
	return (struct choice){.server = live_server(id), .id = id};
}

/* User space made the ring of live servers only, and changes it before a server goes. Without a turn the hash of its client says
 * where a flow goes, on every director the same. */
static __always_inline struct choice next_in_ring(__u32 id, const struct service *service, struct turn *turn, const struct address *client,
						  __u64 random)
{
	__u32 in_turn = turn && !(service->flags & SERVICE_HASHES);
	__u64 start = in_turn ? take_place(turn) : hash_of_client(client);
	struct choice choice;

	if (in_turn && service->flags & SERVICE_LEAST) {
		note(why, WHY_LEAST);
		choice = choice_of(least_loaded(id, start, random));
	} else {
		note(why, in_turn ? WHY_TURN : service->flags & SERVICE_HASHES ? WHY_HASH : WHY_FALLBACK);
		choice = choice_of(server_in_turn(id, start, in_turn));
	}
	/* The ring has just changed: the one that there is now knows who is live. */
	if (choice.id && !choice.server)
		choice = choice_of(server_in_turn(id, start, in_turn));
	choice.start = start;
	return choice;
}

/* What a client is bound by: the first bits of its address. */
static __always_inline struct client_key client_of(const struct service *service, const struct address *client)
{
	struct client_key key = {.scope = service->scope};

	for (int i = 0; i < 4; i++)
		key.address.word[i] = client->word[i] & service->client_mask.word[i];
	return key;
}

/* The id that the server of another service of the group has in this one; 0: it isn't one here. */
static __always_inline __u32 member_of(__u32 service, __u32 id, __u32 generation)
{
	struct server *server = bpf_map_lookup_elem(&servers, &id);
	struct member_key key = {.service = service};
	__u32 *own;

	if (!server || server->generation != generation)
		return 0;
	if (server->service == service)
		return id;
	key.address = server->address;
	own = bpf_map_lookup_elem(&members, &key);
	return own ? *own : 0;
}

/* The id of the server that this client is bound to; 0: none. A server of weight 0 keeps its clients, as IPVS has it
 * by default (expire_quiescent_template=0); one that is down loses them. */
static __always_inline __u32 bound_server(const struct client_key *key, __u32 id, const struct service *service, __u64 now)
{
	struct client *client = bpf_map_lookup_elem(&clients, key);
	__u32 own;

	if (!client || (__s64)(now - client->expires) >= 0)
		return 0;
	if (!(service->flags & SERVICE_GROUPED))
		return same_server(client->server, client->generation) ? client->server : 0;
	own = member_of(id, client->server, client->generation);
	return own && live_server(own) ? own : 0;
}

static __always_inline void bind_to(const struct client_key *key, const struct service *service, __u32 server, __u32 generation,
				    __u64 now)
{
	struct client client;

	if (is_dry)
		return;
	client = (struct client){
		.server = server,
		.generation = generation,
		.expires = now + (__u64)service->persistence * ticks_per_second,
	};

	bpf_map_update_elem(&clients, key, &client, BPF_ANY);
}

/* What persistence needs are functions of their own: nobody else pays for them, and the verifier looks at them once. */

/* The id of the server of a packet's client; 0: it is free to go to any. */
__attribute__((noinline)) int clients_server(__u32 id, const struct packet *packet)
{
	struct service *service = bpf_map_lookup_elem(&services, &id);
	struct client_key key;
	__u32 server;

	if (!service || !packet)
		return 0;
	key = client_of(service, &packet->source);
	server = bound_server(&key, id, service, bpf_jiffies64());
	if (server)
		note(why, WHY_CLIENT);
	return server;
}

__attribute__((noinline)) int bind_client(__u32 id, const struct packet *packet, __u32 server, __u32 generation)
{
	struct service *service = bpf_map_lookup_elem(&services, &id);
	struct client_key key;

	if (!service || !packet)
		return 0;
	key = client_of(service, &packet->source);
	bind_to(&key, service, server, generation, bpf_jiffies64());
	return 1;
}

/* An old flow of a client that has moved on must not pull it back. */
__attribute__((noinline)) int keep_client(__u32 id, const struct packet *packet, __u64 flow)
{
	struct service *service = bpf_map_lookup_elem(&services, &id);
	__u64 now = bpf_jiffies64();
	struct client_key key;
	__u32 bound;

	if (!service || !packet)
		return 0;
	key = client_of(service, &packet->source);
	bound = bound_server(&key, id, service, now);
	if (bound && bound != server_of(flow))
		return 0;
	bind_to(&key, service, server_of(flow), generation_of(flow), now);
	return 1;
}
