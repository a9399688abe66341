/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How many packets and new connections a service takes from one source. */
#pragma once

#include "maps.h"
#include "bucket.h"
#include "dry.h"

/* Time is counted in parts of a tick, so that a rate may be far more than one in a tick. */
#define TICK_SHIFT 24

/* 0: there is no table. */
static __always_inline struct source *buckets_of(__u32 service, const struct limit *limit, const struct address *client)
{
	struct source_key key = {.service = service};
	struct source fresh = {};
	struct source *source;
	__u32 first = 0;
	void *table;

	for (int i = 0; i < 4; i++)
		key.address.word[i] = client->word[i] & limit->source_mask.word[i];
	table = bpf_map_lookup_elem(&sources, &first);
	if (!table)
		return 0;
	source = bpf_map_lookup_elem(table, &key);
	if (source || is_dry)
		return source;
	bpf_map_update_elem(table, &key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(table, &key);
}

/* False: the source has to wait. What can't be counted passes. */
static __always_inline int is_in_rate(__u32 service, const struct limit *limit, const struct address *client, enum rate_kind kind)
{
	const struct rate *rate = &limit->rates[kind];
	__u64 now = bpf_jiffies64() << TICK_SHIFT;
	struct source *source;
	__u64 full_at;

	if (!rate->cost)
		return 1;
	source = buckets_of(service, limit, client);
	if (!source)
		return 1;
	full_at = *(volatile __u64 *)&source->full_at[kind];
	/* More than this rate can owe: it was another one then. */
	if ((__s64)(full_at - now) > (__s64)(rate->burst * rate->cost)) {
		full_at = now;
		if (!is_dry)
			source->full_at[kind] = now;
	}
	if (is_full(full_at, rate->cost, rate->burst, now))
		return 0;
	if (is_dry)
		return 1;
	/* Who was quicker has brought it up to now. */
	if (!__sync_bool_compare_and_swap(&source->full_at[kind], full_at, take_turn(full_at, rate->cost, now)))
		__sync_fetch_and_add(&source->full_at[kind], rate->cost);
	return 1;
}
