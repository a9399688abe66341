/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Is this frame ours to balance? */
#pragma once

#include "maps.h"
#include "include/bpf_endian.h"
#include "parse.h"

/* Odd, and without a pattern: the golden ratio's and the square root of 3's first 64 bits behind the point. */
#define DIRECTORY_FACTOR 0x9e3779b97f4a7c15ULL
#define DIRECTORY_FACTOR_2 0xbb67ae8584caa73bULL

/* The upper bits of an odd factor's product depend on all bits of the other (Knuth, The Art of Computer Programming 3, 6.4). User
 * space has seen to it that everything is found within PROBES places, and that behind the last of some there is a free one. */
static __always_inline __u32 first_place(__u64 product, __u32 half)
{
	return (half & 1) << DIRECTORY_BITS | product >> (64 - DIRECTORY_BITS);
}

static __always_inline __u32 next_place(__u32 place)
{
	return (place & 1 << DIRECTORY_BITS) | ((place + 1) & ((1 << DIRECTORY_BITS) - 1));
}

static __always_inline int equal_addresses(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

static __always_inline __u64 product_of(const struct address *address)
{
	const __u32 *word = address->word;

	return (word[0] | (__u64)word[1] << 32) * DIRECTORY_FACTOR + (word[2] | (__u64)word[3] << 32) * DIRECTORY_FACTOR_2;
}

static __always_inline struct vip *vip_at(__u32 place)
{
	return bpf_map_lookup_elem(&vips, &place);
}

static __always_inline struct port *port_at(__u32 place)
{
	return bpf_map_lookup_elem(&ports, &place);
}

static __always_inline int is_vip(const struct vip *vip, const struct address *address, __u32 family)
{
	return vip->family == family && equal_addresses(&vip->address, address);
}

/* The place of a virtual address that is not in its first one; negative: there is none. Like find_port_behind a function of its
 * own, so that the verifier looks at it once. */
__attribute__((noinline)) int find_vip_behind(const struct address *address, __u32 family, __u32 place)
{
	if (!address)
		return -1;
	for (int i = 1; i < PROBES; i++) {
		struct vip *vip;

		place = next_place(place);
		vip = vip_at(place);
		if (!vip || !vip->family)
			return -1;
		if (is_vip(vip, address, family))
			return place;
	}
	return -1;
}

static __always_inline struct vip *find_vip(const struct packet *packet, __u32 half)
{
	__u32 place = first_place(product_of(&packet->destination), half);
	struct vip *vip = vip_at(place);
	int other;

	if (!vip || !vip->family)
		return 0;
	if (is_vip(vip, &packet->destination, packet->family))
		return vip;
	other = find_vip_behind(&packet->destination, packet->family, place);
	return other < 0 ? 0 : vip_at(other);
}

/* Of all networks with this address the one with the longest prefix. */
static __always_inline struct vip *find_prefix(const struct packet *packet)
{
	struct prefix_key key = {.length = 128};

	if (packet->family == 4) {
		key.word[2] = bpf_htonl(0xffff);
		key.word[3] = packet->destination.word[0];
	} else {
		__builtin_memcpy(key.word, packet->destination.word, sizeof(key.word));
	}
	return bpf_map_lookup_elem(&prefixes, &key);
}

/* All ports whose upper bits are the same: a range is a few of those. */
static __always_inline __u64 port_key(__u32 vip, __u8 protocol, __u32 level, __u16 port)
{
	return (__u64)vip << 32 | (__u64)(port >> level) << 16 | (__u64)protocol << 8 | level;
}

__attribute__((noinline)) int find_port_behind(__u64 key, __u32 place)
{
	for (int i = 1; i < PROBES; i++) {
		struct port *port;

		place = next_place(place);
		port = port_at(place);
		if (!port || !port->key)
			return 0;
		if (port->key == key)
			return port->service;
	}
	return 0;
}

/* The id of the service; 0: there is none. */
static __always_inline __u32 find_port(__u64 key, __u32 half)
{
	__u32 place = first_place(key * DIRECTORY_FACTOR, half);
	struct port *port = port_at(place);

	if (!port || !port->key)
		return 0;
	if (port->key == key)
		return port->service;
	return find_port_behind(key, place);
}

/* The narrowest range that this port is in. */
__attribute__((noinline)) int find_range(__u32 vip, __u32 levels, __u32 protocol, __u32 port, __u32 half)
{
	for (__u32 level = 1; level <= 16; level++) {
		__u32 id;

		if (!(levels >> level & 1))
			continue;
		id = find_port(port_key(vip, protocol, level, port), half);
		if (id)
			return id;
	}
	return 0;
}

/* What else the directory says. */
struct found {
	__u32 id;     /* of the service */
	__u32 router; /* slot of the virtual router that holds the address; 0: none */
	__u32 zero;   /* see blur */
};

static __always_inline struct service *find_service(struct packet *packet, struct found *found)
{
	__u16 port = bpf_ntohs(packet->destination_port);
	struct settings *now;
	struct vip *vip;
	__u32 first = 0;

	now = bpf_map_lookup_elem(&settings, &first);
	if (!now)
		return 0;
	found->zero = now->zero;
	blur(packet, found->zero);
	vip = find_vip(packet, now->half);
	if (!vip && now->prefixes)
		vip = find_prefix(packet);
	if (!vip)
		return 0;
	found->router = vip->slot;
	if (vip->levels & 1)
		found->id = find_port(port_key(vip->id, packet->protocol, 0, port), now->half);
	if (!found->id && vip->levels >> 1)
		found->id = find_range(vip->id, vip->levels, packet->protocol, port, now->half);
	return found->id ? bpf_map_lookup_elem(&services, &found->id) : 0;
}

/* MAC addresses lie at even addresses in frames and in our structs. */
static __always_inline int same_mac(const void *left, const void *right)
{
	const __u16 *a = left, *b = right;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

/* 00-00-5E-00-01-VRID, over IPv6 00-00-5E-00-02-VRID, of an instance that is MASTER now: its frames come to every
 * director until the switches know which one that is. */
static __always_inline int is_masters(const __u8 *mac, __u32 interface)
{
	struct router_key key = {.interface = interface};
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

static __always_inline int is_at(const struct interface *own, const struct packet *packet)
{
	return same_mac(packet->destination_mac, own->mac) || is_masters((const __u8 *)packet->destination_mac, own->index);
}

/* The frame is for another interface of ours on the same network. */
static __always_inline int is_for_sibling(const struct packet *packet, __u32 sibling)
{
	for (int i = 0; i < SIBLINGS_MAX; i++) {
		__u32 slot = sibling - 1;
		struct interface *own = bpf_map_lookup_elem(&interfaces, &slot);

		if (!own)
			return 0;
		if (is_at(own, packet))
			return 1;
		sibling = own->sibling;
	}
	return 0;
}

/* XDP sees flooded frames too. Balancing those would send every packet once per director. */
static __always_inline int is_for_us(const struct packet *packet)
{
	__u32 slot = packet->slot;
	struct interface *own = bpf_map_lookup_elem(&interfaces, &slot);

	if (!own)
		return 0;
	return is_at(own, packet) || (own->sibling && is_for_sibling(packet, own->sibling));
}

static __always_inline int is_suspect(const __u16 *mac)
{
	/* In 64 bits: the verifier of Linux 6.1 loses sight of the bounds where 32 are widened. */
	__u64 product = (mac[0] | (__u64)mac[1] << 16 | (__u64)mac[2] << 32) * DIRECTORY_FACTOR;
	__u64 word = product >> (64 - SUSPECT_BITS + 6);
	__u32 index = 0;
	struct suspects *all = bpf_map_lookup_elem(&suspects, &index);

	return all && all->bits[word] >> (product >> (64 - SUSPECT_BITS) & 63) & 1;
}

static __always_inline int is_fact(struct box_fact *fact, __u16 kind, const struct address *value)
{
	fact->kind = kind;
	fact->value = *value;
	return bpf_map_lookup_elem(&boxes, fact) != 0;
}

/*
 * A frame from another director, or from a next hop of the same service, was balanced there and we are its real
 * server. Direct return doesn't lower the TTL, so balancing it again could send it round for ever. What such a box
 * sends from its own address is a client's like any other.
 */
static __always_inline int is_balanced(__u32 service, const struct packet *packet, const struct address *sender)
{
	struct address number = {};
	struct box_fact fact = {};

	if (!is_suspect(packet->source_mac))
		return 0;
	__builtin_memcpy(fact.mac, packet->source_mac, sizeof(fact.mac));
	if (is_fact(&fact, BOX_ADDRESS, sender) || is_fact(&fact, BOX_DIRECTOR, &number))
		return fact.kind == BOX_DIRECTOR;
	number.word[0] = service;
	return is_fact(&fact, BOX_NEXT_HOP, &number);
}
