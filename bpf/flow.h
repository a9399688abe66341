/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Known flows, in a table of our own, because a hash map of the kernel is the most expensive thing that a packet can
 * meet. It is an array of sets of eight places; a flow lies in one of two sets. Nearly all lie in the first, which is
 * one or two cache lines. At half of its places the table loses no flow; it is allocated so that this is the number
 * that was asked for.
 *
 * Both sets of a flow come from far away, for nothing if there is no such flow. So every place has a hint beside the table: eight
 * bits of the print that was put there last. Those of a set are one word, and all words a sixteenth of the table. For a SYN, which
 * is nearly always of no flow, a set is read only if one of its hints fits. Who holds a place writes its hint before the
 * print, and it stays until the next flow gets the place: so flows that are there always fit.
 *
 * A place holds no address: its print is a hash of the whole tuple under a secret seed. For two flows that differ,
 * whatever they are, all seeds but one in 2^64 give different prints (multilinear hashing: Lemire and Kaser, "Strongly
 * universal string hashing is fast", The Computer Journal 57(11), 2014; two independent ones, 32 bits of each).
 *
 * All CPUs share it without locks. Who takes a place marks it FLOW_BUSY first, writes the state and then the print: so
 * a print that is the same before and after the state was read vouches for it. A state changes by compare-and-swap
 * alone: so nobody writes about one flow what was meant for another.
 */
#pragma once

#include "maps.h"
#include "parse.h"
#include "dry.h"

/* Set by the loader. */
volatile const __u64 flow_seed[FLOW_SEED_WORDS];
volatile const __u32 flow_sets_mask;			 /* number of sets less one; the number is a power of two */
volatile const __u32 flow_unit_shift;			 /* a unit of expiry is so many bits of ticks */

#define FLOW_FREE 0
#define FLOW_BUSY 1

#define look_at(word) (*(volatile __u64 *)&(word))

struct flow_hash {
	__u64 print;
	__u64 spread; /* as good as random in every bit, for what is chosen by hash */
	__u32 set[2];
};

/* A flow that was found: its place, and the state that it had. */
struct known_flow {
	struct flow_place *place; /* 0: none */
	__u64 state;
};

static __always_inline struct flow_hash hash_of(const struct packet *packet)
{
	const __u32 *source = packet->source.word, *destination = packet->destination.word;
	__u64 ports = (__u64)packet->source_port << 16 | packet->destination_port;
	__u64 kind = packet->family << 8 | packet->protocol;
	const volatile __u64 *first = flow_seed, *second = flow_seed + FLOW_SEED_TERMS;
	__u64 a, b, mix;
	struct flow_hash hash;

	a = first[0] + first[1] * source[0] + first[2] * destination[0] + first[3] * ports + first[4] * kind;
	b = second[0] + second[1] * source[0] + second[2] * destination[0] + second[3] * ports + second[4] * kind;
	if (packet->family == 6) { /* of IPv4 these are zero */
		for (int i = 1; i < 4; i++) {
			a += first[3 + 2 * i] * source[i] + first[4 + 2 * i] * destination[i];
			b += second[3 + 2 * i] * source[i] + second[4 + 2 * i] * destination[i];
		}
	}
	hash.print = (a & 0xffffffff00000000) | b >> 32;
	if (hash.print <= FLOW_BUSY)
		hash.print = FLOW_BUSY + 1;
	/* Sums of products put flows that differ little into a pattern, and patterns fill sets unevenly. */
	mix = a ^ (b << 32 | b >> 32);
	mix ^= mix >> 29;
	mix *= flow_seed[FLOW_SEED_WORDS - 1];
	mix ^= mix >> 32;
	hash.spread = mix;
	hash.set[0] = mix & flow_sets_mask;
	hash.set[1] = mix >> 32 & flow_sets_mask;
	return hash;
}

static __always_inline __u32 server_of(__u64 state)
{
	return state & ((1 << FLOW_SERVER_BITS) - 1);
}

static __always_inline __u32 generation_of(__u64 state)
{
	return (__u32)state >> FLOW_SERVER_BITS;
}

static __always_inline __u32 phase_of(__u64 state)
{
	return state >> FLOW_PHASE_SHIFT & FLOW_PHASE_MASK;
}

static __always_inline __u32 units(__u64 ticks)
{
	return ticks >> flow_unit_shift;
}

/* Units until the flow is forgotten; 0 or less: it is. */
static __always_inline __s32 remaining(__u64 state, __u32 now)
{
	return (__s32)(((__u32)(state >> FLOW_EXPIRES_SHIFT) - now) << (32 - FLOW_EXPIRES_BITS)) >> (32 - FLOW_EXPIRES_BITS);
}

static __always_inline __u64 state_of(const struct service *service, __u32 server, __u32 generation, __u32 phase, __u32 now)
{
	__u64 expires = (now + service->timeouts[phase & FLOW_PHASE_MASK]) & ((1 << FLOW_EXPIRES_BITS) - 1);

	return (__u64)phase << FLOW_PHASE_SHIFT | expires << FLOW_EXPIRES_SHIFT |
	       (__u32)(generation << FLOW_SERVER_BITS) | server;
}

static __always_inline struct flow_set *set_at(__u32 index)
{
	return bpf_map_lookup_elem(&flows, &index);
}

/* The way of a flow; negative: it isn't there. */
static __always_inline int look_in(const struct flow_set *set, __u64 print, __u64 *state)
{
	for (int i = 0; i < FLOW_WAYS; i++) {
		const struct flow_place *place = &set->place[i];

		if (look_at(place->print) != print)
			continue;
		*state = look_at(place->state);
		if (look_at(place->print) == print)
			return i;
	}
	return -1;
}

static __always_inline struct flow_hints *hints_at(__u32 index)
{
	return bpf_map_lookup_elem(&flow_hints, &index);
}

static __always_inline __u8 hint_of(__u64 print)
{
	return print >> 56;
}

/* Not 0: one of the hints fits, that is, one of the bytes of x is zero (Warren, Hacker's Delight, 6-1). */
static __always_inline __u64 may_hold(const struct flow_hints *hints, __u64 print)
{
	const __u64 ones = 0x0101010101010101;
	__u64 x = look_at(hints->way) ^ hint_of(print) * ones;

	return (x - ones) & ~x & ones << 7;
}

/* The set with this index; 0 if it is doubted, and the flow isn't in it. */
static __always_inline struct flow_set *set_of(__u32 index, __u64 print, int doubted)
{
	if (doubted) {
		const struct flow_hints *hints = hints_at(index);

		if (!hints || !may_hold(hints, print))
			return 0;
	}
	return set_at(index);
}

/* The flow of this tuple, forgotten or not. doubted: there is probably none. zero is for the verifier, see blur: what follows is
 * the same for all places. */
static __always_inline struct known_flow find_flow(const struct flow_hash *hash, int doubted, __u32 zero)
{
	struct known_flow found = {};
	struct flow_set *set = set_of(hash->set[0], hash->print, doubted);
	int way = set ? look_in(set, hash->print, &found.state) : -1;

	if (way < 0) {
		set = set_of(hash->set[1], hash->print, doubted);
		way = set ? look_in(set, hash->print, &found.state) : -1;
	}
	if (way >= 0) {
		__u64 place = (__u64)way | zero;

		asm volatile("" : "+r"(place)); /* or the compiler masks the half of it that the verifier doesn't know */
		found.place = &set->place[place & (FLOW_WAYS - 1)];
	}
	return found;
}

/* What a packet of a known flow changes about it. True once in a unit: then its timeout began again. Never called in a dry run. */
static __always_inline int touch_flow(const struct known_flow *flow, const struct service *service, const struct packet *packet,
				      __u32 now)
{
	__u32 phase = phase_of(flow->state);
	__u64 state;

	if (closes(packet))
		phase = FLOW_CLOSING;
	else if (phase == FLOW_OPENING && !opens(packet))
		phase = FLOW_OPEN;
	else if (phase == FLOW_UDP_FIRST)
		phase = FLOW_UDP;
	state = state_of(service, server_of(flow->state), generation_of(flow->state), phase, now);
	return state != flow->state && __sync_bool_compare_and_swap(&flow->place->state, flow->state, state);
}

/* What is in a place that a flow is to have. */
struct room {
	struct flow_place *place; /* 0: none */
	__u8 *hint;		  /* 0: it is right already */
	__u64 print;
	__u64 state;
};

/* What a set offers to a new flow. */
struct offer {
	__u64 best; /* rank and, in the lower bits, way; the lower the better */
	__u64 held; /* places that are not free */
};

#define RANK_SHIFT 8
#define RANK_NONE (1ULL << 40) /* and above: the place can't be had */

/* Comparisons without a jump, or the verifier would follow each of the ways that all places together can go. The compiler must
 * not see through. */
static __always_inline __u64 is_zero(__u64 x)
{
	__u64 zero = x | -x;

	asm volatile("" : "+r"(zero));
	zero = zero >> 63 ^ 1;
	asm volatile("" : "+r"(zero)); /* or a use of it becomes a jump */
	return zero;
}

static __always_inline __u64 is_less(__u64 a, __u64 b)
{
	__u64 less = a - b;

	asm volatile("" : "+r"(less));
	less >>= 63;
	asm volatile("" : "+r"(less));
	return less;
}

/* 0: free, or of a flow that is forgotten. A young flow ranks by the time that it has left. */
static __always_inline __u64 rank_of(__u64 print, __u64 state, __u32 now)
{
	__u64 left = (__u32)remaining(state, now), forgotten = is_zero(left) | (left >> 31 & 1);
	__u64 busy = is_zero(print ^ FLOW_BUSY), free = is_zero(print) | (forgotten & ~busy);
	__u64 young = 1 << FLOW_OPENING | 1 << FLOW_UDP_FIRST;
	__u64 kept = (~(young >> phase_of(state)) & 1) | busy;

	return (left | kept << 32) & (free - 1);
}

static __always_inline struct offer look_for_room(const struct flow_set *set, __u32 now)
{
	struct offer offer = {.best = ~0ULL >> 1};

	for (__u64 way = 0; way < FLOW_WAYS; way++) {
		__u64 rank = rank_of(look_at(set->place[way].print), look_at(set->place[way].state), now);
		__u64 here = rank << RANK_SHIFT | way;

		offer.held += is_zero(rank) ^ 1;
		offer.best ^= (offer.best ^ here) & -is_less(here, offer.best);
	}
	return offer;
}

_Static_assert(FLOW_FIRST_SET + 2 == FLOW_WAYS, "find_free looks at three places first");

/* Nearly always a set has free places, and there is nothing to weigh up. Negative: it may have none, or holds too many. */
static __always_inline int find_free(const struct flow_set *set)
{
	__u64 held = FLOW_WAYS, way = 0;
	int last = FLOW_FIRST_SET - 1;

	/* They are taken from the first on: nearly always the last ones are free, so that there is nothing to count. */
	if (!(look_at(set->place[last].print) | look_at(set->place[last + 1].print) | look_at(set->place[last + 2].print))) {
		for (int i = 0; i < last; i++) {
			if (!look_at(set->place[i].print))
				return i;
		}
		return last;
	}
	for (__u64 i = FLOW_WAYS; i > 0; i--) {
		__u64 free = is_zero(look_at(set->place[i - 1].print));

		held -= free;
		way ^= (way ^ (i - 1)) & -free;
	}
	return held < FLOW_FIRST_SET ? (int)way : -1;
}

/*
 * Where a new flow may lie: FLOW_WAYS * number of the set + way; negative: nowhere. An established flow never goes for
 * another one; of the young ones the oldest does, if nothing is free. A function of its own, so that the verifier looks at it
 * once.
 */
__attribute__((noinline)) int find_room(__u32 first_set, __u32 second_set, __u32 now)
{
	struct flow_set *set = set_at(first_set);
	struct offer first, second;
	int way;

	if (!set)
		return -1;
	way = find_free(set);
	if (way >= 0)
		return way;
	first = look_for_room(set, now);
	if (first.held < FLOW_FIRST_SET)
		return first.best & (FLOW_WAYS - 1);
	set = set_at(second_set);
	if (!set)
		return -1;
	second = look_for_room(set, now);
	/* Free places rank first, and of two sets that have some the emptier one gets it. */
	if (second.held < first.held || second.best >> RANK_SHIFT < first.best >> RANK_SHIFT)
		first.best = second.best + FLOW_WAYS;
	return first.best < RANK_NONE ? (int)(first.best & (2 * FLOW_WAYS - 1)) : -1;
}

static __always_inline struct room room_for(const struct flow_hash *hash, __u32 now)
{
	struct flow_hints *hints = hints_at(hash->set[0]);
	__u32 index = hash->set[0];
	struct room room = {};
	struct flow_set *set;
	int place;

	if (!hints)
		return room;
	/* Nearly always it will be written. If it weren't here by then, the atomic write that follows would wait for it. */
	look_at(hints->way);
	place = find_room(hash->set[0], hash->set[1], now);
	if (place < 0)
		return room;
	if (place & FLOW_WAYS) {
		index = hash->set[1];
		hints = hints_at(index);
	}
	set = set_at(index);
	if (!set || !hints)
		return room;
	room.place = &set->place[(__u64)place & (FLOW_WAYS - 1)];
	room.hint = &hints->way[(__u64)place & (FLOW_WAYS - 1)];
	room.print = look_at(room.place->print);
	room.state = look_at(room.place->state);
	/* Another CPU may have taken it meanwhile. */
	if (room.print != FLOW_FREE && rank_of(room.print, room.state, now) << RANK_SHIFT >= RANK_NONE)
		room.place = 0;
	return room;
}

/* The place of a flow that begins anew. */
static __always_inline struct room own_room(const struct known_flow *flow, const struct flow_hash *hash)
{
	return (struct room){.place = flow->place, .print = hash->print, .state = flow->state};
}

/* False: another CPU was quicker, or would have been. */
static __always_inline int store_flow(const struct flow_hash *hash, const struct room *room, __u64 state)
{
	struct flow_place *place = room->place;

	if (!place || room->print == FLOW_BUSY)
		return 0;
	if (is_dry)
		return 1;
	if (!__sync_bool_compare_and_swap(&place->print, room->print, FLOW_BUSY))
		return 0;
	if (room->print != FLOW_FREE && look_at(place->state) != room->state) { /* it has come back to life */
		__sync_lock_test_and_set(&place->print, room->print);
		return 0;
	}
	if (room->hint)
		*(volatile __u8 *)room->hint = hint_of(hash->print);
	look_at(place->state) = state;
	__sync_lock_test_and_set(&place->print, hash->print);
	return 1;
}
