// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * For test/bench alone. BPF_PROG_TEST_RUN hands the same frame to a program again and again, as the run before left it.
 * The driver makes a fresh one of it inside the kernel, with the next flow's source, and calls the program to measure.
 */
#include "include/kernel.h"
#include "include/bpf_helpers.h"
#include "include/bpf_endian.h"
#include "parse.h"

/* Set by the loader. */
volatile const __u64 flow_mask;    /* number of flows less one; the number is a power of two */
volatile const __u32 first_source;  /* IPv4 address of the first flow */
volatile const __u8 addresses[12]; /* destination and source MAC address of every frame */
volatile const __u8 untouched;     /* the frame is the same each time: the program to measure leaves it as it is */

#define PORTS_BITS 14 /* so many source ports per source address */

__u64 frame_number;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} measured SEC(".maps");

SEC("xdp")
int driver(struct xdp_md *ctx)
{
	struct cursor cursor = {(void *)(long)ctx->data, (void *)(long)ctx->data_end};
	struct ethernet_header *ethernet = take(&cursor, sizeof(*ethernet));
	struct ipv4_header *ip = take(&cursor, sizeof(*ip));
	struct tcp_header *tcp = take(&cursor, sizeof(*tcp));
	__u64 flow = frame_number++ & flow_mask;

	if (!ethernet || !ip || !tcp)
		return XDP_ABORTED;
	if (!untouched) {
		for (int i = 0; i < 6; i++) {
			ethernet->destination[i] = addresses[i];
			ethernet->source[i] = addresses[6 + i];
		}
		ip->source = bpf_htonl(first_source + (__u32)(flow >> PORTS_BITS));
		tcp->source_port = bpf_htons(1024 + (flow & ((1 << PORTS_BITS) - 1)));
	}
	bpf_tail_call(ctx, &measured, 0);
	return XDP_ABORTED;
}

/* The least that a forwarding program can do. */
SEC("xdp")
int bare(struct xdp_md *ctx)
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

char licence[] SEC("license") = "Dual BSD/GPL";
