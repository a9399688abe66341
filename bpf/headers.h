/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* An IP packet with everything that its headers may hold, wherever in the frame it begins. The common packet is read by parse.h. */
#pragma once

#include "include/kernel.h"
#include "include/bpf_endian.h"
#include "include/bpf_helpers.h"
#include "maps.h"
#include "parse.h"
#include "service.h"

#define HEADERS_MAX 6 /* extension headers of IPv6 */

static __always_inline struct ip_packets *packets_at_hand(void)
{
	__u32 index = 0;

	return bpf_map_lookup_elem(&quotes, &index);
}

/* IPv6's, as far as their first 8 bytes are alike. */
struct extension_header {
	__u8 next_header;
	__u8 length; /* in units of 8 bytes, not counting the first one */
	union {
		struct {
			__u8 type;
			__u8 segments_left;
		} routing;
		__be16 fragment; /* offset in units of 8 bytes in the upper 13 bits; 1: more fragments */
	};
	__be32 id;
};

enum reading {
	IP_UNREADABLE, /* or not for us: the kernel knows what to do with it */
	IP_READ,
	IP_ENDLESS, /* too many headers */
};

/* False: the packet ends before. */
static __always_inline int load(struct xdp_md *ctx, const struct ip_packet *ip, __u32 at, void *to, __u32 size)
{
	return at + size <= ip->end && !bpf_xdp_load_bytes(ctx, at, to, size);
}

static __always_inline void end_at(struct ip_packet *ip, __u32 end)
{
	if (end < ip->end)
		ip->end = end;
}

static __always_inline enum reading read_ipv4(struct xdp_md *ctx, __u32 at, struct ip_packet *ip)
{
	struct ipv4_header header;
	__u32 length, fragment;

	if (!load(ctx, ip, at, &header, sizeof(header)) || header.version_ihl >> 4 != 4)
		return IP_UNREADABLE;
	length = (header.version_ihl & 0x0f) * 4;
	fragment = bpf_ntohs(header.fragment);
	end_at(ip, at + bpf_ntohs(header.total_length));
	if (length < sizeof(header) || at + length > ip->end)
		return IP_UNREADABLE;
	ip->source.word[0] = header.source;
	ip->destination.word[0] = header.destination;
	ip->at = at + length;
	ip->offset = (fragment & IPV4_OFFSET_MASK) * 8;
	ip->more = (fragment & IPV4_MORE_FRAGMENTS) != 0;
	ip->fragment = (fragment & (IPV4_OFFSET_MASK | IPV4_MORE_FRAGMENTS)) != 0;
	ip->id = header.id;
	ip->protocol = header.protocol;
	return IP_READ;
}

/* Steps over one header; false: the packet ends in it, or is not for us yet. A routing header that has no segments left is
 * ignored whatever its type (RFC 8200, 4.4; RFC 5095, 3: type 0 too); with some left it names another destination. */
static __always_inline int step_over(struct xdp_md *ctx, struct ip_packet *ip)
{
	struct extension_header header;
	__u32 size = 8;

	if (!load(ctx, ip, ip->at, &header, sizeof(header)))
		return 0;
	if (ip->protocol == PROTOCOL_FRAGMENT) {
		if (ip->fragment)
			return 0;
		ip->offset = bpf_ntohs(header.fragment) & 0xfff8;
		ip->more = bpf_ntohs(header.fragment) & 1;
		ip->fragment = ip->offset || ip->more; /* else it is whole: RFC 6946 */
		ip->id = header.id;
	} else {
		if (ip->protocol == PROTOCOL_ROUTING && header.routing.segments_left)
			return 0;
		size += header.length * 8;
	}
	ip->protocol = header.next_header;
	ip->at += size;
	return ip->at <= ip->end;
}

static __always_inline int is_extension(__u8 protocol)
{
	return protocol == PROTOCOL_HOP_BY_HOP || protocol == PROTOCOL_ROUTING || protocol == PROTOCOL_FRAGMENT ||
	       protocol == PROTOCOL_DESTINATION_OPTIONS;
}

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP;
}

static __always_inline enum reading read_ipv6(struct xdp_md *ctx, __u32 at, struct ip_packet *ip)
{
	struct ipv6_header header;

	if (!load(ctx, ip, at, &header, sizeof(header)) || header.version_class_flow[0] >> 4 != 6)
		return IP_UNREADABLE;
	ip->source = header.source;
	ip->destination = header.destination;
	ip->protocol = header.next_header;
	ip->at = at + sizeof(header);
	end_at(ip, ip->at + bpf_ntohs(header.payload_length));
	for (int i = 0; i < HEADERS_MAX; i++) {
		if (!is_extension(ip->protocol) || ip->offset) /* what follows in a later fragment is no header */
			return IP_READ;
		if (!step_over(ctx, ip))
			return IP_UNREADABLE;
	}
	return is_extension(ip->protocol) && !ip->offset ? IP_ENDLESS : IP_READ;
}

/* Reads the packet whose header begins there. ip says its family, and where it ends at the latest: a frame has padding behind it,
 * an error quotes only its beginning. A function of its own, like all that is rare: the verifier looks at it once. */
__attribute__((noinline)) int read_ip(struct xdp_md *ctx, __u32 at, struct ip_packet *ip)
{
	if (!ip)
		return IP_UNREADABLE;
	return ip->family == 4 ? read_ipv4(ctx, at, ip) : read_ipv6(ctx, at, ip);
}

/* The id of the service that a packet is for; 0: there is none. */
__attribute__((noinline)) int service_of(struct packet *packet)
{
	struct found found = {};

	return packet && find_service(packet, &found) ? found.id : 0;
}

/* Whether any service of ours has the address that a packet is for. */
__attribute__((noinline)) int is_virtual(const struct packet *packet)
{
	struct settings *now;
	__u32 first = 0;

	now = bpf_map_lookup_elem(&settings, &first);
	return packet && now && (find_vip(packet, now->half) || (now->prefixes && find_prefix(packet)));
}
