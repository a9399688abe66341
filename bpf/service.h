/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Is this frame ours to balance? */
#pragma once

#include "maps.h"
#include "parse.h"

/* Set by the loader, one value per interface. */
volatile const __u32 own_slot;	    /* in `interfaces` and `frames` */
volatile const __u32 own_interface; /* interface index */

static __always_inline struct service *find_service(const struct packet *packet)
{
	struct service_key key = {
		.address = packet->destination,
		.port = packet->destination_port,
		.protocol = packet->protocol,
	};

	return bpf_map_lookup_elem(&services, &key);
}

/* MAC addresses lie at even addresses in frames and in our structs. */
static __always_inline int same_mac(const void *left, const void *right)
{
	const __u16 *a = left, *b = right;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

/* 00-00-5E-00-01-VRID, over IPv6 00-00-5E-00-02-VRID, of an instance that is MASTER now: its frames come to every
 * director until the switches know which one that is. */
static __always_inline int is_masters(const __u8 *mac)
{
	struct router_key key = {.interface = own_interface};
	struct router *router;
	struct words *own;
	__u32 slot;

	if (mac[0] || mac[1] || mac[2] != 0x5e || mac[3] || (mac[4] != 1 && mac[4] != 2))
		return 0;
	key.family = mac[4] == 1 ? 4 : 6;
	key.vrid = mac[5];
	router = bpf_map_lookup_elem(&routers, &key);
	if (!router || !(router->flags & ROUTER_VIRTUAL_MAC))
		return 0;
	slot = router->slot;
	own = bpf_map_lookup_elem(&words, &slot);
	return own && own->gate;
}

/* XDP sees flooded frames too. Balancing those would send every packet once per director. */
static __always_inline int is_for_us(const struct packet *packet)
{
	__u32 slot = own_slot;
	struct interface *own = bpf_map_lookup_elem(&interfaces, &slot);

	if (own && same_mac(packet->ethernet->destination, own->mac))
		return 1;
	return is_masters(packet->ethernet->destination);
}

static __always_inline int is_suspect(const __u8 *mac)
{
	/* In 64 bits: the verifier of Linux 6.1 loses sight of the bounds where 32 are widened. */
	__u64 bit = (mac[4] & 0x0fULL) << 8 | mac[5];
	__u32 index = 0;
	struct suspects *all = bpf_map_lookup_elem(&suspects, &index);

	return all && all->bits[bit / 64] >> (bit % 64) & 1;
}

static __always_inline int is_fact(struct box_fact *fact, __u16 kind, __u32 value)
{
	fact->kind = kind;
	fact->value = value;
	return bpf_map_lookup_elem(&boxes, fact) != 0;
}

/*
 * A frame from another director, or from a next hop of the same service, was balanced there and we are its real
 * server. Direct return doesn't lower the TTL, so balancing it again could send it round for ever. What such a box
 * sends from its own address is a client's like any other.
 */
static __always_inline int is_balanced(const struct service *service, const struct packet *packet)
{
	struct box_fact fact = {};

	if (!is_suspect(packet->ethernet->source))
		return 0;
	__builtin_memcpy(fact.mac, packet->ethernet->source, sizeof(fact.mac));
	if (is_fact(&fact, BOX_ADDRESS, packet->source))
		return 0;
	return is_fact(&fact, BOX_DIRECTOR, 0) || is_fact(&fact, BOX_NEXT_HOP, service->id);
}
