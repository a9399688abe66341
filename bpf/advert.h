/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* An advert as it lies in the frame, whose it is, and what may be wrong with it. Everything doubtful is right. */
#pragma once

#include "include/bpf_endian.h"
#include "maps.h"
#include "parse.h"
#include "service.h"

#define IP_START (FRAME_SHIFT + sizeof(struct ethernet_header)) /* in the scratch memory, as all offsets here */
#define OPTIONS_MAX 40
#define CHUNK 512 /* the most that bpf_csum_diff takes */

struct vrrp_header {
	__u8 version_type;
	__u8 vrid;
	__u8 priority;
	__u8 count;
	__u8 auth_type; /* version 2; in version 3 the interval is here too */
	__u8 interval;
	__be16 checksum;
};

_Static_assert(IP_START + 20 + OPTIONS_MAX + MESSAGE_MAX + 8 <= SCRATCH_MAX, "any message that is read fits");
_Static_assert(IP_START % 4 == 0, "what sums are made of is aligned");

/* Offsets have 64 bits, see is_suspect. */
struct advert {
	struct scratch *scratch;
	struct router *router;
	struct words *words;
	struct timer *timer;
	__u64 message; /* where the VRRP message begins */
	__u64 length;  /* of it, by the IP header; what stands behind its addresses included */
	__u64 end;     /* of the IP packet */
	__u64 frame_end;
	__u64 now;
	__u32 slot;
	__u32 family;  /* 4 or 6 */
	__u32 ingress; /* interface index */
	__u32 home;    /* slot of the interface that it is for, in `interfaces` */
};

static __always_inline struct ipv4_header *ipv4_of(const struct advert *a)
{
	return (void *)a->scratch + IP_START;
}

static __always_inline struct ipv6_header *ipv6_of(const struct advert *a)
{
	return (void *)a->scratch + IP_START;
}

static __always_inline struct vrrp_header *message_of(const struct advert *a)
{
	return (void *)a->scratch + (a->message & 0x7f);
}

/* False: whose it is can't be told. In scratch the frame has no VLAN tag, as the sockets of user space see it. */
static __always_inline int read_advert(struct xdp_md *ctx, struct advert *a, __u32 tagged)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	__u64 size = data_end - data, tag = tagged ? sizeof(struct vlan_tag) : 0, header, ip_length;
	const __be16 *ethertype;
	__u32 index = 0;

	a->scratch = bpf_map_lookup_elem(&scratch, &index);
	if (!a->scratch)
		return 0;
	if (size < sizeof(struct tagged_addresses))
		return 0;
	size -= tag;
	a->frame_end = FRAME_SHIFT + size;
	if (size > SCRATCH_MAX - FRAME_SHIFT - 8)
		size = SCRATCH_MAX - FRAME_SHIFT - 8;
	barrier_var(size); /* the verifier wants to see both bounds of what is used */
	if (size < sizeof(struct ethernet_header) || bpf_xdp_load_bytes(ctx, tag, (void *)a->scratch + FRAME_SHIFT, size))
		return 0;
	if (tag && bpf_xdp_load_bytes(ctx, 0, (void *)a->scratch + FRAME_SHIFT, 12))
		return 0;
	ethertype = (void *)a->scratch + FRAME_SHIFT + 12;
	if (*ethertype == bpf_htons(ETHERTYPE_IPV4)) {
		header = (ipv4_of(a)->version_ihl & 0x0f) * 4;
		ip_length = bpf_ntohs(ipv4_of(a)->total_length);
		a->family = 4;
	} else {
		if (*(__u8 *)ipv6_of(a) >> 4 != 6)
			return 0;
		header = sizeof(struct ipv6_header);
		ip_length = header + bpf_ntohs(ipv6_of(a)->payload_length);
		a->family = 6;
	}
	a->message = IP_START + header;
	if (ip_length < header + 2 || a->message + 2 > a->frame_end)
		return 0;
	a->length = ip_length - header;
	a->end = IP_START + ip_length;
	return 1;
}

static __always_inline const __u8 *source_of(const struct advert *a)
{
	return a->family == 4 ? (__u8 *)&ipv4_of(a)->source : (__u8 *)&ipv6_of(a)->source;
}

/* Into 16 zeroes. */
static __always_inline void copy_source(__u8 *to, const struct advert *a)
{
	if (a->family == 4)
		__builtin_memcpy(to, &ipv4_of(a)->source, 4);
	else
		__builtin_memcpy(to, &ipv6_of(a)->source, 16);
}

static __always_inline int same_address(const struct advert *a, const __u8 *left, const __u8 *right)
{
	const __u32 *x = (const __u32 *)left, *y = (const __u32 *)right;

	if (a->family == 4)
		return x[0] == y[0];
	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline int is_own_source(const struct advert *a, const __u8 *address)
{
	return a->router->flags & ROUTER_SOURCE && same_address(a, address, a->router->source);
}

/* To the group, 224.0.0.18 or ff02::12, or to our own address. */
static __always_inline int is_addressed_to_us(const struct advert *a)
{
	const __u8 *destination;
	const __u32 *word;

	if (a->family == 4) {
		if (ipv4_of(a)->destination == bpf_htonl(0xe0000012))
			return 1;
		destination = (__u8 *)&ipv4_of(a)->destination;
	} else {
		destination = (void *)&ipv6_of(a)->destination;
		word = (const __u32 *)destination;
		if (word[0] == bpf_htonl(0xff020000) && !word[1] && !word[2] && word[3] == bpf_htonl(0x12))
			return 1;
	}
	return is_own_source(a, destination);
}

static __always_inline int find_router(struct advert *a)
{
	struct router_key key = {.family = a->family, .vrid = message_of(a)->vrid};
	struct interface *home = bpf_map_lookup_elem(&interfaces, &a->home);

	if (!home)
		return 0;
	key.interface = home->index;
	a->router = bpf_map_lookup_elem(&routers, &key);
	if (!a->router || !is_addressed_to_us(a))
		return 0;
	a->slot = a->router->slot;
	a->words = bpf_map_lookup_elem(&words, &a->slot);
	a->timer = bpf_map_lookup_elem(&timers, &a->slot);
	return a->words && a->timer;
}

/* Of so many bytes, a multiple of 4, from an offset below 128. */
static __always_inline __u64 sum_of(const struct advert *a, __u64 from, __u64 length)
{
	__u64 sum = 0;

	for (int i = 0; i < MESSAGE_MAX / CHUNK; i++) {
		__u64 part = length < CHUNK ? length : CHUNK;

		if (!part)
			break;
		sum = (__u32)bpf_csum_diff(0, 0, (void *)a->scratch + (from & 0x7f) + i * CHUNK, part & (2 * CHUNK - 4), sum);
		length -= part;
	}
	return sum;
}

static __always_inline int is_right(__u64 sum)
{
	for (int i = 0; i < 4; i++)
		sum = (sum >> 16) + (sum & 0xffff);
	return sum == 0xffff;
}

/* RFC 5798 has a pseudo-header in the checksum of version 3; RFC 9568 has none over IPv4. Either will do. */
static __always_inline int is_right_message(const struct advert *a, __u64 length)
{
	__u64 sum = sum_of(a, a->message, (length + 3) & ~3ULL);

	if (a->family == 4 && is_right(sum))
		return 1;
	if (a->router->version == 2)
		return 0;
	sum += bpf_htons(PROTOCOL_VRRP) + bpf_htons(length);
	if (a->family == 4)
		return is_right(sum + ipv4_of(a)->source + ipv4_of(a)->destination);
	return is_right(sum + sum_of(a, IP_START + 8, 32));
}

static __always_inline int is_right_header(const struct advert *a)
{
	return a->family == 6 || is_right(sum_of(a, IP_START, a->message - IP_START));
}

static __always_inline int is_fragment(const struct advert *a)
{
	return a->family == 4 && ipv4_of(a)->fragment & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK);
}

static __always_inline int is_echo(const struct advert *a)
{
	struct interface *own = bpf_map_lookup_elem(&interfaces, &a->home);

	if (own && same_mac((void *)a->scratch + FRAME_SHIFT + 6, own->mac))
		return 1;
	return is_own_source(a, source_of(a));
}

static __always_inline int is_peer(const struct advert *a)
{
	struct peer_key key = {.slot = a->slot};

	if (!(a->router->flags & ROUTER_UNICAST))
		return 1;
	copy_source(key.address, a);
	return bpf_map_lookup_elem(&peers, &key) != 0;
}

/* Why nobody could use the advert; ADVERT_PASSED: there is nothing wrong. */
static __always_inline enum advert_fate fault_of(const struct advert *a)
{
	const struct vrrp_header *message = message_of(a);
	__u64 needed;
	__u8 *padding;

	if (a->length > MESSAGE_MAX)
		return ADVERT_PASSED;
	if (a->end > a->frame_end)
		return ADVERT_LENGTH;
	/* Sums are made of 4 bytes at a time, templates compared 8 at a time. */
	padding = (void *)a->scratch + (a->end & (SCRATCH_MAX - 1));
	if (a->end > SCRATCH_MAX - 8)
		return ADVERT_PASSED;
	__builtin_memset(padding, 0, 8);

	if (!is_right_header(a))
		return ADVERT_HEADER;
	if (is_fragment(a))
		return ADVERT_FRAGMENT;
	if ((a->family == 4 ? ipv4_of(a)->ttl : ipv6_of(a)->hop_limit) < a->router->lowest_ttl)
		return ADVERT_TTL;
	if (a->length < sizeof(*message))
		return ADVERT_LENGTH;
	if (message->version_type >> 4 != a->router->version)
		return ADVERT_VERSION;
	if ((message->version_type & 0x0f) != 1)
		return ADVERT_TYPE;
	if (!message->count)
		return ADVERT_ADDRESS_COUNT;
	needed = sizeof(*message) + message->count * (a->family == 4 ? 4 : 16);
	if (a->router->version == 2)
		needed += 8;
	if (a->length < needed)
		return ADVERT_LENGTH;
	/* RFC 9568 5.2.8: the sum is of the message "ending after the last IPv4 address". Who puts something behind that
	 * may think otherwise. */
	if (!is_right_message(a, needed) && (a->length == needed || !is_right_message(a, a->length)))
		return ADVERT_CHECKSUM;
	/* RFC 9568 5.2.6: the four bits above the interval of version 3 are "ignored on reception". */
	if (!message->interval && (a->router->version == 2 || !(message->auth_type & 0x0f)))
		return ADVERT_INTERVAL;
	if (is_echo(a))
		return ADVERT_ECHO;
	return is_peer(a) ? ADVERT_PASSED : ADVERT_SOURCE;
}
