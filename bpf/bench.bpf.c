// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * For test/bench alone. BPF_PROG_TEST_RUN hands the same frame to a program again and again, as the run before left it.
 * A driver makes a fresh one of it inside the kernel, with every header rewritten for the next flow, and calls the program to
 * measure. The generator does the same and sends the frame out of an interface.
 */
#include "include/kernel.h"
#include "include/bpf_helpers.h"
#include "include/bpf_endian.h"
#include "parse.h"

#define PORTS_BITS 14 /* so many source ports per source address */
#define FIRST_PORT 1024
#define UNUSED __attribute__((unused))
#define IPV4_AT 14
#define IPV6_SOURCE_AT (14 + 8 + 12) /* the last word of each address */
#define IPV6_DESTINATION_AT (14 + 24 + 12)
#define IPV6_TCP_AT (14 + 40)
#define TEMPLATE_WORDS 9 /* of IPv6; of IPv4 seven */

/* Set by the loader. */
volatile const __u64 template[TEMPLATE_WORDS]; /* the headers; fields that vary hold what is added to, flags and checksums 0 */
volatile const __u32 family;	   /* 4 or 6; 0: the frame is the same each time, and the program to measure leaves it so */
volatile const __u64 flows;	   /* so many, in turn; 0: none comes twice */
volatile const __u32 first_source; /* address of the first flow; IPv6: the last word of it */
volatile const __u32 services;	   /* so many virtual addresses, in turn */
volatile const __u32 address_sum;  /* of the header that the addresses are in, IPv4: its checksum's */
volatile const __u32 tcp_sum;
volatile const __u8 tcp_flags;
volatile const __u32 flood;	   /* so many SYNs that never come twice before each packet of a flow */
volatile const __u32 flood_source; /* address of the first SYN */
volatile const __u32 out;	   /* index of the interface that the generator sends to */

__u64 next_flow, next_flood, sunk;
__u32 next_service, flooded;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} measured SEC(".maps");

static __always_inline __be16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return bpf_htons(~sum);
}

static __always_inline int copy_template(void *data, void *end, int words)
{
	if (data + words * 8 > end)
		return 0;
	for (int i = 0; i < words; i++)
		((__u64 *)data)[i] = template[i];
	return 1;
}

/* False: the frame is too short. */
static __always_inline int make_frame(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 source, service = 0, sum;
	__u8 flags = tcp_flags;
	struct tcp_header *tcp;
	__u16 port;
	__u64 flow;

	if (!family)
		return 1;
	if (flood && flooded < flood) {
		flooded++;
		flow = next_flood++;
		flags = TCP_SYN;
		source = flood_source;
	} else {
		flooded = 0;
		flow = next_flow;
		next_flow = flow + 1 == flows ? 0 : flow + 1;
		source = first_source;
	}
	if (services > 1) {
		service = next_service;
		next_service = service + 1 == services ? 0 : service + 1;
	}
	source += flow >> PORTS_BITS;
	port = FIRST_PORT + (flow & ((1 << PORTS_BITS) - 1));
	sum = (source >> 16) + (source & 0xffff) + service;
	if (family == 4) {
		struct ipv4_header *ip = data + IPV4_AT;

		if (!copy_template(data, end, 7))
			return 0;
		ip->source = bpf_htonl(source);
		ip->destination += bpf_htonl(service);
		ip->checksum = folded(address_sum + sum);
		tcp = data + IPV4_AT + sizeof(*ip);
	} else {
		if (!copy_template(data, end, TEMPLATE_WORDS))
			return 0;
		*(__be32 *)(data + IPV6_SOURCE_AT) = bpf_htonl(source);
		*(__be32 *)(data + IPV6_DESTINATION_AT) += bpf_htonl(service);
		tcp = data + IPV6_TCP_AT;
	}
	tcp->source_port = bpf_htons(port);
	tcp->flags = flags;
	tcp->checksum = folded(tcp_sum + sum + port + flags);
	return 1;
}

SEC("xdp.frags")
int driver(struct xdp_md *ctx)
{
	if (make_frame(ctx))
		bpf_tail_call(ctx, &measured, 0);
	return XDP_ABORTED;
}

SEC("xdp.frags")
int generator(struct xdp_md *ctx)
{
	return make_frame(ctx) ? bpf_redirect(out, 0) : XDP_ABORTED;
}

/* The least that a program can do, */
SEC("xdp.frags")
int bare_drop(struct xdp_md *ctx UNUSED)
{
	return XDP_DROP;
}

/* a forwarding one, */
SEC("xdp.frags")
int bare_swap(struct xdp_md *ctx)
{
	struct cursor cursor = {(void *)(long)ctx->data, (void *)(long)ctx->data_end};
	struct ethernet_header *ethernet = take(&cursor, sizeof(*ethernet));
	__u16 *mac, kept;

	if (!ethernet)
		return XDP_ABORTED;
	mac = (__u16 *)ethernet;
	for (int i = 0; i < 3; i++) {
		kept = mac[i];
		mac[i] = mac[i + 3];
		mac[i + 3] = kept;
	}
	return XDP_TX;
}

/* and one that leaves the packet to the kernel. */
SEC("xdp.frags")
int bare_pass(struct xdp_md *ctx UNUSED)
{
	return XDP_PASS;
}

/* Where the frames end. */
SEC("xdp.frags")
int sink(struct xdp_md *ctx UNUSED)
{
	sunk++;
	return XDP_DROP;
}

char licence[] SEC("license") = "Dual BSD/GPL";
