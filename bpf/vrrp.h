/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Adverts for our own virtual routers. What nobody could use is dropped before the kernel's stack has any work with it,
 * and so is what comes too fast; of each sender and reason one a second passes, so that user space sees and tells it.
 * User space checks all of it again: here everything doubtful passes. A BACKUP may leave the repeats of its MASTER's
 * advert to us.
 */
#pragma once

#include "advert.h"
#include "limit.h"
#include "absorb.h"
#include "forward.h"
#include "watch.h"

static __always_inline enum advert_fate fate_of(struct advert *a)
{
	enum advert_fate fault;
	__u64 seen;

	if (!(a->router->flags & ROUTER_FILTER))
		return ADVERT_PASSED;
	fault = fault_of(a);
	if (fault != ADVERT_PASSED)
		return is_sample(a, fault) ? ADVERT_SAMPLED : fault;
	seen = read_seen(a->words);
	if (is_repeat(a))
		return repeat_fate(a, seen);
	return is_in_time(a) ? ADVERT_PASSED : ADVERT_RATE;
}

/* Copies the advert for whoever looks on. */
static __always_inline void show(const struct advert *a, enum advert_fate fate)
{
	struct interface *home;
	struct capture *copy;
	__u64 now;

	if (!is_watched(WATCH_ADVERTS))
		return;
	now = bpf_ktime_get_ns();
	if (now >= watched.until)
		return;
	copy = new_copy(now);
	if (!copy)
		return;
	copy->time = now;
	home = bpf_map_lookup_elem(&interfaces, &a->home);
	copy->interface = home ? home->index : own_interface;
	copy->kind = WATCH_ADVERTS;
	copy->verdict = 0;
	copy->drop_reason = 0;
	__builtin_memset(&copy->server, 0, sizeof(copy->server));
	copy->slot = a->slot;
	copy->fate = fate;
	copy->length = a->frame_end - FRAME_SHIFT;
	__builtin_memcpy(copy->frame, a->scratch->word, sizeof(copy->frame));
	bpf_ringbuf_submit(copy, 0);
}

/* Decides on one advert and counts it for its router. A function of its own, that the verifier looks at once, and so that
 * the packets of services don't share registers and stack with it. Returns the fate; ADVERT_FATE_COUNT: it is not for us. */
__attribute__((noinline)) int judge_advert(struct xdp_md *ctx, __u32 home, __u32 tagged)
{
	struct advert a = {.ingress = is_dry ? own_interface : ctx->ingress_ifindex, .home = home};
	struct advert_counters *counters;
	enum advert_fate fate = ADVERT_FATE_COUNT;

	if (!read_advert(ctx, &a, tagged))
		return ADVERT_FATE_COUNT;
	if (find_router(&a)) {
		a.now = bpf_ktime_get_ns();
		fate = fate_of(&a);
		counters = is_dry ? 0 : bpf_map_lookup_elem(&adverts, &a.slot);
		if (counters && fate < ADVERT_FATE_COUNT)
			counters->by_fate[fate]++;
	}
	note(advert, 1);
	note(fate, fate);
	show(&a, fate);
	return fate;
}

static __always_inline struct decision decide_advert(struct xdp_md *ctx, const struct packet *packet)
{
	switch (judge_advert(ctx, packet->slot, packet->tagged)) {
	case ADVERT_FATE_COUNT:
		return pass(VERDICT_PASS_NOT_OURS);
	case ADVERT_PASSED:
	case ADVERT_SAMPLED:
		return pass(VERDICT_PASS_ADVERT);
	case ADVERT_ABSORBED:
		return drop(DROP_ADVERT_ABSORBED);
	case ADVERT_RATE:
		return drop(DROP_ADVERT_RATE);
	default:
		return drop(DROP_ADVERT_REFUSED);
	}
}
