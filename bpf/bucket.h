/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "include/kernel.h"

/* A token bucket in one word, the time at which it is full again. Two CPUs at the same moment may take one token: that
 * is as exact as a limit on floods has to be. */
static __always_inline int is_full(__u64 full_at, __u64 cost, __u64 burst, __u64 now)
{
	return (__s64)(full_at - now) > (__s64)((burst - 1) * cost);
}

static __always_inline __u64 take_turn(__u64 full_at, __u64 cost, __u64 now)
{
	return ((__s64)(full_at - now) > 0 ? full_at : now) + cost;
}
