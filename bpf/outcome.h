/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A decision in a number: a function of its own returns no more than that. */
#pragma once

#include "include/kernel.h"

enum outcome_kind {
	OUTCOME_FLOW,	 /* not decided: the packet goes on as any other */
	OUTCOME_VERDICT, /* value: the verdict */
	OUTCOME_DROP,	 /* value: the reason */
	OUTCOME_SERVER,	 /* value: the id of a real server */
};

#define OUTCOME_SHIFT 24

static __always_inline __u32 outcome_of(enum outcome_kind kind, __u32 value)
{
	return kind << OUTCOME_SHIFT | value;
}

static __always_inline __u32 outcome_kind(__u32 outcome)
{
	return outcome >> OUTCOME_SHIFT;
}

static __always_inline __u32 outcome_value(__u32 outcome)
{
	return outcome & ((1 << OUTCOME_SHIFT) - 1);
}
