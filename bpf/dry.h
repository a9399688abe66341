/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The dry run: a second copy of the programs, loaded with dry_run set, shares all maps with the first one and writes to none.
 * User space gives it frames to learn what would become of them, and why. In the copy that forwards, the verifier knows that
 * dry_run is 0 and takes out what belongs to it. Whoever adds a write to a map puts it behind is_dry; what depends on the answer
 * of a write reads instead: then it is what the next such packet would get. A test compares all maps after many dry runs.
 */
#pragma once

#include "include/kernel.h"

volatile const __u8 dry_run; /* set by the loader */

#define is_dry __builtin_expect(dry_run, 0)

/* Why a frame goes to its real server. */
enum why {
	WHY_NONE,     /* it doesn't */
	WHY_FLOW,     /* its flow is known */
	WHY_CLIENT,   /* persistence */
	WHY_TURN,     /* the schedule's next place */
	WHY_HASH,     /* of the client's address, by which the service schedules */
	WHY_FALLBACK, /* the same, since it has no turn */
	WHY_LEAST,    /* the fewest active flows */
	WHY_ROOM,     /* the next one in the ring that may have another flow */
	WHY_COUNT,
};

/* What a dry run tells, beside the frame itself. */
struct trace {
	__u64 flow;	   /* state of the flow in the table, whatever it is worth; 0: there is none */
	__u32 interface;   /* slot, plus one, of the one that it is for */
	__u32 service;	   /* ids; 0: none */
	__u32 server;
	__u32 verdict;
	__u32 drop_reason; /* with VERDICT_DROP */
	enum why why;
	__u32 place;	   /* in the ring, from 0, with WHY_TURN, WHY_HASH, WHY_FALLBACK and WHY_ROOM */
	__u32 places;	   /* of the ring */
	__u32 stored;	   /* the flow would be remembered */
	__u32 flooded;	   /* it would not, because there are too many new ones */
	__u32 advert;	   /* it is an advert, and `fate` what would become of it */
	__u32 fate;
	__u32 now;	   /* in the units of flows */
	__u32 never; /* 0, which the verifier can't know */
};

/* Only the copy with dry_run set writes to it, and each copy has one of its own. User space clears it before. */
struct trace traced;

/* Only statements that cost nothing where dry_run is 0 may stand here. */
#define note(field, value)                                                                                                         \
	do {                                                                                                                       \
		if (is_dry)                                                                                                        \
			traced.field = (value);                                                                                     \
	} while (0)
