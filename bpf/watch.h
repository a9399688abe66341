/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Copies of frames for whoever looks on: tcpdump sees nothing of what the programs send or drop. While nobody does, a packet
 * costs one look at a word. So that a busy box is not drowned, what is not wanted is left out here, and of the rest there are so
 * many a second and no more.
 */
#pragma once

#include "maps.h"
#include "parse.h"
#include "forward.h"

/* One for all programs; user space shares its memory. */
struct watch watched SEC(".data.watch");

static __always_inline int is_watched(__u32 kind)
{
	return __builtin_expect(*(volatile __u64 *)&watched.until, 0) && !is_dry && watched.kinds & kind;
}

static __always_inline int is_under(const struct address *address, const struct address *mask, const struct address *wanted)
{
	for (int i = 0; i < 4; i++)
		if ((address->word[i] & mask->word[i]) != wanted->word[i])
			return 0;
	return 1;
}

/* Does the frame belong to the service, host and port that are asked for? */
static __always_inline int is_wanted(const struct packet *packet)
{
	__u16 source = bpf_ntohs(packet->source_port), destination = bpf_ntohs(packet->destination_port);

	if (watched.protocol && packet->protocol != watched.protocol)
		return 0;
	if (watched.family && packet->family != watched.family)
		return 0;
	if (watched.port && source != watched.port && destination != watched.port)
		return 0;
	if (destination < watched.first_port || destination > watched.last_port)
		return 0;
	if (!is_under(&packet->destination, &watched.vip_mask, &watched.vip))
		return 0;
	return is_under(&packet->source, &watched.host_mask, &watched.host) || is_under(&packet->destination, &watched.host_mask, &watched.host);
}

/* A place for one more copy; 0: there are too many, or nobody takes them away. */
static __always_inline struct capture *new_copy(__u64 now)
{
	struct capture *copy = 0;
	__u64 second = now >> 30;

	/* Two CPUs at the same moment may count one too few: that is as exact as it has to be. */
	if (watched.second != second) {
		watched.second = second;
		watched.copied = 0;
	}
	if (watched.copied < watched.rate)
		copy = bpf_ringbuf_reserve(&captured, sizeof(*copy), 0);
	if (copy)
		watched.copied++;
	else
		__sync_fetch_and_add(&watched.missed, 1);
	return copy;
}

/* Copies a frame as it came. */
__attribute__((noinline)) int show_frame(struct xdp_md *ctx, const struct packet *packet, __u32 verdict, __u32 reason, __u32 server_id)
{
	struct server *server;
	struct capture *copy;
	__u64 now, size;

	if (!packet)
		return 0;
	if (!(watched.verdicts >> (verdict & 31) & 1))
		return 0;
	if (verdict == VERDICT_DROP && !(watched.reasons >> (reason & 31) & 1))
		return 0;
	now = bpf_ktime_get_ns();
	if (now >= watched.until || !is_wanted(packet))
		return 0;
	copy = new_copy(now);
	if (!copy)
		return 0;
	copy->time = now;
	copy->interface = own_interface;
	copy->kind = WATCH_FRAMES;
	copy->slot = 0;
	copy->fate = 0;
	copy->verdict = verdict;
	copy->drop_reason = reason;
	copy->length = packet->bytes;
	size = packet->bytes;
	barrier_var(size); /* or it would be compared in 32 bits, of which the verifier of Linux 6.1 learns nothing */
	if (size > CAPTURED_MAX - FRAME_SHIFT)
		size = CAPTURED_MAX - FRAME_SHIFT;
	barrier_var(size); /* the verifier wants to see both bounds of what is used */
	if (size < sizeof(struct ethernet_header) || bpf_xdp_load_bytes(ctx, 0, (void *)copy->frame + FRAME_SHIFT, size)) {
		bpf_ringbuf_discard(copy, 0);
		return 0;
	}
	server = bpf_map_lookup_elem(&servers, &server_id);
	if (server_id && server)
		copy->server = *server;
	else
		__builtin_memset(&copy->server, 0, sizeof(copy->server));
	bpf_ringbuf_submit(copy, 0);
	return 0;
}
