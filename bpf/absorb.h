/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The repeats of the MASTER's advert, which a BACKUP may leave to us: they move a timer and end here. */
#pragma once

#include "advert.h"
#include "limit.h"

#define MILLISECOND 1000000ULL

/* The MASTER's last advert once more, byte for byte? The id of the IP packet and with it the checksum of its header may
 * be others: that checksum was verified. */
static __always_inline int is_repeat(struct advert *a)
{
	struct ipv4_header *ip = ipv4_of(a);
	__be16 id = ip->id, checksum = ip->checksum;
	__u64 differs = 0;

	if (a->end > TEMPLATE_MAX || *(volatile __u64 *)&a->words->length != a->end)
		return 0;
	if (a->family == 4)
		ip->id = ip->checksum = 0;
	for (__u32 i = 0; i < TEMPLATE_MAX / 8; i++) {
		if (i * 8 >= a->end)
			break;
		differs |= a->scratch->word[i] ^ a->words->template[i]; /* the verifier would follow each way out */
	}
	if (a->family == 4) {
		ip->id = id;
		ip->checksum = checksum;
	}
	return !differs;
}

/* A whole memory barrier too: what is read after it is at least as new. */
static __always_inline __u64 read_seen(struct words *of)
{
	return is_dry ? *(volatile __u64 *)&of->seen : __sync_fetch_and_add(&of->seen, 0);
}

/* Runs when a timer has run out, maybe while the next advert comes in on another CPU: time is compared here, and again
 * in user space. */
static int wake(void *map, __u32 *slot, struct timer *timer)
{
	struct words *own = bpf_map_lookup_elem(&words, slot);
	struct event event = {.slot = *slot};
	__u64 seen, now;
	__s64 left;

	(void)map;
	if (!own)
		return 0;
	seen = read_seen(own);
	if (!seen)
		return 0;
	now = bpf_ktime_get_ns();
	left = seen + own->down - now;
	if (left > 0)
		bpf_timer_start(&timer->timer, left, 0);
	else if (bpf_ringbuf_output(&events, &event, sizeof(event), BPF_RB_FORCE_WAKEUP))
		bpf_timer_start(&timer->timer, MILLISECOND, 0); /* no room now */
	return 0;
}

/* False: the timer can't be had, for example because no process holds the timers any more. */
static __always_inline int arm(struct timer *timer, __u64 down)
{
	if (timer->armed && bpf_timer_start(&timer->timer, down, 0) == 0)
		return 1;
	/* Another agent's programs have timers of their own: a callback would keep the program loaded that it is part of. */
	bpf_timer_init(&timer->timer, &timers, CLOCK_MONOTONIC);
	if (bpf_timer_set_callback(&timer->timer, wake) || bpf_timer_start(&timer->timer, down, 0))
		return 0;
	timer->armed = 1;
	return 1;
}

/*
 * Takes a repeat as a sign of life. True: it is enough that we know. `seen` was read before the template was compared.
 *
 * That word says both whether repeats are absorbed and when the last one was. User space ends the absorbing by
 * exchanging it for 0, and has then in hand what it was: a program that is in the middle of this on another CPU finds
 * another value than it had read, and its advert passes. So nothing is absorbed after the exchange, and nobody has to
 * wait for the programs. The value is a generation as well: an absorbing that began later began at another moment, and
 * a template that was half written meanwhile absorbs nothing.
 */
static __always_inline int absorb(struct advert *a, __u64 seen)
{
	__u32 first = 0;
	struct words *shared = bpf_map_lookup_elem(&words, &first);

	if (!seen || !shared)
		return 0;
	/* A port of a bond hears the group even while the bond doesn't listen to it: that says nothing about the port which
	 * we would answer on. The program of a bond runs on its ports if it is in native mode. */
	if (a->ingress != own_interface)
		return 0;
	a->now = bpf_ktime_get_ns(); /* not before seen, whoever wrote that */
	if (a->now >= *(volatile __u64 *)&shared->lease || *(volatile __u64 *)&a->words->gate)
		return 0;
	/* Never does a dry run go on, but the verifier has to: where it doesn't see that wake is a timer's, Linux 6.1 counts its
	 * stack to ours. */
	if (is_dry && !traced.never)
		return 1;
	if (!arm(a->timer, *(volatile __u64 *)&a->words->down))
		return 0;
	return __sync_val_compare_and_swap(&a->words->seen, seen, a->now) == seen;
}

/* So much earlier the next repeat may pass, until those of all routers pass at the beginning of a second of the clock: then
 * user space wakes once for many. */
#define ALIGNMENT (SECOND / 8)

static __always_inline enum advert_fate repeat_fate(struct advert *a, __u64 seen)
{
	int absorbed = absorb(a, seen);
	__u64 gap = a->now - a->timer->passed;

	if (absorbed && gap < SECOND)
		return ADVERT_ABSORBED;
	/* Of repeats one is as good as the other: a flood of them keeps none from user space that it needs. */
	if (!absorbed && gap < MILLISECOND)
		return ADVERT_RATE;
	if (is_dry)
		return absorbed ? ADVERT_SAMPLED : ADVERT_PASSED;
	a->timer->passed = a->now;
	if (!absorbed)
		return ADVERT_PASSED;
	a->timer->passed -= a->now % SECOND < ALIGNMENT ? a->now % SECOND : ALIGNMENT;
	return ADVERT_SAMPLED;
}
