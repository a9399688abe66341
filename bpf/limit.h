/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How many adverts pass: of one sender, and of all senders of a router together. */
#pragma once

#include "advert.h"
#include "bucket.h"
#include "dry.h"

#define SECOND 1000000000ULL

/* An advert every 10 ms is as fast as the protocol goes, and a MASTER may answer another as often. */
#define SENDER_RATE 300
#define SENDER_BURST 100
#define ROUTER_RATE 1000
#define ROUTER_BURST 300

/* The second stage: what passes of all senders together. Whoever invents senders finds nothing but this. What nobody could
 * use has a bucket of its own: it takes no turn from the others. */
static __always_inline int router_takes(struct advert *a, __u64 *full_at)
{
	const __u64 cost = SECOND / ROUTER_RATE;

	if (is_full(*full_at, cost, ROUTER_BURST, a->now))
		return 0;
	if (!is_dry)
		*full_at = take_turn(*full_at, cost, a->now);
	return 1;
}

static __always_inline struct sender_key sender_of(const struct advert *a, enum advert_fate reason)
{
	struct sender_key key = {.slot = a->slot, .reason = reason};

	if (reason == ADVERT_PASSED)
		__builtin_memcpy(key.mac, (void *)a->scratch + FRAME_SHIFT + 6, sizeof(key.mac));
	copy_source(key.address, a);
	return key;
}

/* Is this the one of its sender that user space sees this second? */
static __always_inline int is_sample(struct advert *a, enum advert_fate reason)
{
	struct sender_key key = sender_of(a, reason);
	__u64 *known = bpf_map_lookup_elem(&senders, &key);
	__u64 next = a->now + SECOND, due;

	if (known) {
		due = *known;
		if (a->now < due || !router_takes(a, &a->timer->samples))
			return 0;
		return is_dry || __sync_val_compare_and_swap(known, due, next) == due;
	}
	if (!router_takes(a, &a->timer->samples))
		return 0;
	return is_dry || bpf_map_update_elem(&senders, &key, &next, BPF_NOEXIST) == 0;
}

/* What changes who is MASTER must not drown in a flood: a first priority 0, and each priority above all others. */
static __always_inline int is_news(struct advert *a)
{
	struct timer *timer = a->timer;
	__u32 priority = message_of(a)->priority;

	if (is_dry) {
		if (a->now - timer->period >= SECOND)
			return 1;
		return priority ? priority > timer->highest : !timer->resigned;
	}
	if (a->now - timer->period >= SECOND) {
		timer->period = a->now;
		timer->highest = 0;
		timer->resigned = 0;
	}
	if (!priority) {
		if (timer->resigned)
			return 0;
		timer->resigned = 1;
		return 1;
	}
	if (priority <= timer->highest)
		return 0;
	timer->highest = priority;
	return 1;
}

static __always_inline int is_in_time(struct advert *a)
{
	const __u64 cost = SECOND / SENDER_RATE;
	struct sender_key key;
	__u64 *known, next;

	if (is_news(a))
		return 1;
	key = sender_of(a, ADVERT_PASSED);
	known = bpf_map_lookup_elem(&senders, &key);
	if (known) {
		if (is_full(*known, cost, SENDER_BURST, a->now) || !router_takes(a, &a->timer->rate))
			return 0;
		if (!is_dry)
			*known = take_turn(*known, cost, a->now);
		return 1;
	}
	if (!router_takes(a, &a->timer->rate))
		return 0;
	if (is_dry)
		return 1;
	next = a->now + cost;
	bpf_map_update_elem(&senders, &key, &next, BPF_ANY);
	return 1;
}
