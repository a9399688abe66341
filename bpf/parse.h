/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From a frame to the few fields that decide. Every read is bounds-checked where it happens. */
#pragma once

#include "include/kernel.h"
#include "include/bpf_endian.h"
#include "include/bpf_helpers.h"
#include "address.h"
#include "vlan.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_DESTINATION_OPTIONS 60
#define PROTOCOL_VRRP 112
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET_MASK 0x1fff

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct ethernet_header {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

struct ipv6_header {
	__u8 version_class_flow[4];
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	struct address source;
	struct address destination;
};

/* What TCP and UDP begin with. */
struct ports {
	__be16 source;
	__be16 destination;
};

struct udp_header {
	__be16 source_port;
	__be16 destination_port;
	__be16 length;
	__be16 checksum;
};

struct tcp_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledgement;
	__u8 data_offset;
	__u8 flags;
	__be16 window;
	__be16 checksum;
	__be16 urgent;
};

struct packet {
	__u16 destination_mac[3];
	__u16 source_mac[3];
	__be32 fragment_id; /* with first_fragment */
	__u64 bytes;	    /* of the whole frame */
	__u32 slot;	    /* of the interface that it is for, in `interfaces` and `frames` */
	__u32 tagged;	    /* it has a VLAN tag */
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 family; /* 4 or 6 */
	__u8 protocol;
	__u8 tcp_flags; /* 0 for UDP */
	__u8 first_fragment;
};

struct cursor {
	void *at;
	void *end;
};

/* The next size bytes, or 0 if the frame ends before. */
static __always_inline void *take(struct cursor *cursor, __u32 size)
{
	void *start = cursor->at;

	if (start + size > cursor->end)
		return 0;
	cursor->at = start + size;
	return start;
}

enum kind {
	KIND_OTHER, /* or not parseable, or without ports */
	KIND_FLOW,  /* TCP or UDP */
	KIND_VRRP,  /* nothing else of it is read */
	KIND_RARE,  /* nor of this: see rare.h */
};

static __always_inline enum kind kind_without_ports(const struct packet *packet)
{
	const __u64 rare = 1ULL << PROTOCOL_HOP_BY_HOP | 1ULL << PROTOCOL_ROUTING | 1ULL << PROTOCOL_FRAGMENT |
			   1ULL << PROTOCOL_ICMPV6 | 1ULL << PROTOCOL_DESTINATION_OPTIONS;

	/* Adverts in a tag are left to the kernel. */
	if (packet->protocol == PROTOCOL_VRRP)
		return KIND_VRRP;
	if (packet->family == 4)
		return packet->protocol == PROTOCOL_ICMP ? KIND_RARE : KIND_OTHER;
	return packet->protocol < 64 && rare >> packet->protocol & 1 ? KIND_RARE : KIND_OTHER;
}

static __always_inline enum kind parse_ports(struct cursor *cursor, struct packet *packet)
{
	if (packet->protocol == PROTOCOL_TCP) {
		struct tcp_header *tcp = take(cursor, sizeof(*tcp));

		if (!tcp)
			return KIND_OTHER;
		packet->source_port = tcp->source_port;
		packet->destination_port = tcp->destination_port;
		packet->tcp_flags = tcp->flags;
		return KIND_FLOW;
	}
	if (packet->protocol == PROTOCOL_UDP) {
		struct udp_header *udp = take(cursor, sizeof(*udp));

		if (!udp)
			return KIND_OTHER;
		packet->source_port = udp->source_port;
		packet->destination_port = udp->destination_port;
		return KIND_FLOW;
	}
	return kind_without_ports(packet);
}

/* A large frame may lie in several places of which only the first, with all headers, is in the cursor. */
static __noinline __u64 whole_length(struct xdp_md *ctx)
{
	return bpf_xdp_get_buff_len(ctx);
}

static __always_inline void measure(struct xdp_md *ctx, const struct cursor *cursor, const void *ip, __u32 length, struct packet *packet)
{
	if (cursor->end - ip < length)
		packet->bytes = whole_length(ctx);
}

static __always_inline enum kind parse_ipv6(struct xdp_md *ctx, struct cursor *cursor, struct packet *packet)
{
	struct ipv6_header *ip = take(cursor, sizeof(*ip));

	if (!ip || ip->version_class_flow[0] >> 4 != 6)
		return KIND_OTHER;
	measure(ctx, cursor, ip, sizeof(*ip) + bpf_ntohs(ip->payload_length), packet);
	packet->family = 6;
	packet->source = ip->source;
	packet->destination = ip->destination;
	packet->protocol = ip->next_header;
	return parse_ports(cursor, packet);
}

/* Goes past a VLAN tag to what it is for. 0: none of ours. */
static __always_inline int enter_network(struct cursor *cursor, struct packet *packet, __be16 *type)
{
	struct vlan_tag *tag;
	__u32 network = own_networks[0];

	if (*type == bpf_htons(ETHERTYPE_VLAN)) {
		tag = take(cursor, sizeof(*tag));
		if (!tag)
			return 0;
		network = network_of(tag);
		*type = tag->type;
		packet->tagged = 1;
	}
	if (!network)
		return 0;
	packet->slot = network - 1;
	return 1;
}

/* Both addresses in 4-byte steps: a frame has no such alignment, but every machine that balances can do without. */
typedef __u32 __attribute__((may_alias)) mac_part;

static __always_inline void copy_macs(void *to, const void *from)
{
	for (int i = 0; i < 3; i++)
		((mac_part *)to)[i] = ((const mac_part *)from)[i];
}

static __always_inline enum kind parse(struct xdp_md *ctx, struct packet *packet)
{
	struct cursor cursor = {(void *)(long)ctx->data, (void *)(long)ctx->data_end};
	struct ethernet_header *ethernet;
	struct ipv4_header *ip;
	__u32 header_length;
	__u16 fragment;
	__be16 type;

	packet->slot = own_slot;
	packet->bytes = cursor.end - cursor.at;
	ethernet = take(&cursor, sizeof(*ethernet));
	if (!ethernet)
		return KIND_OTHER;
	copy_macs(packet->destination_mac, ethernet);
	type = ethernet->type;
	if (!enter_network(&cursor, packet, &type))
		return KIND_OTHER;
	if (type != bpf_htons(ETHERTYPE_IPV4))
		return type == bpf_htons(ETHERTYPE_IPV6) ? parse_ipv6(ctx, &cursor, packet) : KIND_OTHER;

	ip = take(&cursor, sizeof(*ip));
	if (!ip || ip->version_ihl >> 4 != 4)
		return KIND_OTHER;
	header_length = (ip->version_ihl & 0x0f) * 4;
	if (header_length < sizeof(*ip) || !take(&cursor, header_length - sizeof(*ip)))
		return KIND_OTHER;
	measure(ctx, &cursor, ip, bpf_ntohs(ip->total_length), packet);

	packet->family = 4;
	fragment = bpf_ntohs(ip->fragment);
	if (fragment & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK) && (ip->protocol != PROTOCOL_VRRP || fragment & IPV4_OFFSET_MASK))
		return KIND_RARE;
	packet->source.word[0] = ip->source;
	packet->destination.word[0] = ip->destination;
	packet->protocol = ip->protocol;
	return parse_ports(&cursor, packet);
}

/* Has the verifier forget by which way a packet came here, or it would follow each one to the end. It can't know what is added
 * to each field, and that is nothing. */
static __always_inline void blur(struct packet *packet, __u32 zero)
{
	packet->family |= zero;
	packet->protocol |= zero;
	packet->tcp_flags |= zero;
	packet->first_fragment |= zero;
	packet->slot |= zero;
	packet->tagged |= zero;
}

/* A SYN that opens a connection. */
static __always_inline int opens(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* The first packet of a flow, as far as it can tell. */
static __always_inline int begins(const struct packet *packet)
{
	return packet->protocol == PROTOCOL_UDP || opens(packet);
}

static __always_inline int closes(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_FIN | TCP_RST)) != 0;
}
