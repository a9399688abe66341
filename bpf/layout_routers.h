/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Other boxes, and our virtual routers with their adverts. See layout.h. */
#pragma once

#include "include/kernel.h"
#include "include/bpf_helpers.h"
#include "address.h"

#define SUSPECT_BITS 20
#define BOX_FACTS_MAX 65536
#define ROUTERS_MAX 1024
#define PEERS_MAX 65536
#define SENDERS_MAX 8192
#define TEMPLATE_MAX 448
#define FRAME_SHIFT 2	  /* puts the IP header at a multiple of 4 */
#define MESSAGE_MAX 1536  /* a longer VRRP message passes unread */
#define SCRATCH_MAX 2048

/* Ordered: what excuses a box is written before what accuses it. */
enum box_fact_kind {
	BOX_ADDRESS,  /* value: an address of its own, network order */
	BOX_NEXT_HOP, /* value: the id of a service that it is a real server of */
	BOX_DIRECTOR, /* value: 0 */
};

/* `boxes`: a set of facts about the owners of MAC addresses; the values mean nothing. */
struct box_fact {
	__u8 mac[6];
	__u16 kind;
	struct address value; /* a single number is the first word */
};

/* `suspects`: one entry, a bit for each value of a hash of MAC addresses; set if `boxes` may hold something about such an address.
 * It spares nearly all packets the look-ups there: with 2,000 real servers all but those of one router in 500. */
struct suspects {
	__u64 bits[1 << (SUSPECT_BITS - 6)];
};

/* `routers`: our virtual routers */
struct router_key {
	__u32 interface; /* index */
	__u8 family;	 /* 4 or 6 */
	__u8 vrid;
	__u8 padding[2];
};

enum router_flag {
	ROUTER_FILTER = 1,
	ROUTER_VIRTUAL_MAC = 2, /* frames to its virtual MAC address are balanced while the gate is open */
	ROUTER_UNICAST = 4,	/* adverts come from its `peers` alone */
	ROUTER_SOURCE = 8,	/* `source` is known */
};

struct router {
	__u32 slot; /* in `words`, `timers` and `adverts`; 0 is never used */
	__u8 version;
	__u8 flags;
	__u8 lowest_ttl;
	__u8 padding;
	__u8 source[16]; /* of our own adverts; IPv4: the first 4 bytes */
};

/* `peers`: a set; the values mean nothing. */
struct peer_key {
	__u32 slot;
	__u8 address[16];
};

/*
 * `words`, by slot of a router: memory that the process of the election shares with the programs, so that it never
 * has to call the kernel. Times are CLOCK_MONOTONIC in nanoseconds.
 */
struct words {
	__u64 lease;   /* of slot 0: nothing is absorbed from then on */
	__u64 spare_word;
	__u64 gate;    /* not 0: this director is MASTER */
	__u64 seen;    /* when the MASTER's advert was seen last; 0: none is absorbed */
	__u64 down;    /* so long without one, and user space is woken */
	__u64 length;  /* of the template; 0: there is none */
	__u64 previous; /* see chance.h: MAC address of the MASTER before us from its first byte on, and 16 bits of the interface's
			 * index; 0: that was us */
	__u64 until;	/* so long */
	/* The MASTER's advert from the Ethernet header to the end of the IP packet, behind FRAME_SHIFT bytes and padded
	 * with zeroes; IPv4 without id and header checksum. */
	__u64 template[TEMPLATE_MAX / 8];
};

/* `timers`, by slot of a router */
struct timer {
	struct bpf_timer timer;
	__u64 passed;	   /* when a repeat of the MASTER's advert was last let through */
	__u64 rate;	   /* of all senders, see take_turn */
	__u64 samples;	   /* the same, of what nobody could use */
	__u64 period;	   /* beginning of a period of the rate limit */
	__u32 highest;	   /* priority seen in it */
	__u32 resigned;	   /* priority 0 was seen in it */
	__u64 armed;	   /* it has its callback */
};

/* `senders` */
struct sender_key {
	__u32 slot;
	__u16 reason; /* enum advert_fate; ADVERT_PASSED: the rate of what is well-formed */
	__u8 mac[6];  /* with ADVERT_PASSED */
	__u8 address[16];
};

/* `events`: a timer has run out. */
struct event {
	__u32 slot;
	__u32 padding;
};

/* What was done with an advert for one of our virtual routers, and why. */
enum advert_fate {
	ADVERT_PASSED,
	ADVERT_SAMPLED,	 /* passed as one of many that don't */
	ADVERT_ABSORBED, /* the MASTER's last advert once more */
	ADVERT_HEADER,	 /* checksum of the IPv4 header */
	ADVERT_FRAGMENT,
	ADVERT_TTL,
	ADVERT_LENGTH,
	ADVERT_VERSION,
	ADVERT_TYPE,
	ADVERT_ADDRESS_COUNT,
	ADVERT_INTERVAL,
	ADVERT_CHECKSUM,
	ADVERT_ECHO,   /* our own */
	ADVERT_SOURCE, /* not one of the peers */
	ADVERT_RATE,   /* too many */
	ADVERT_FATE_COUNT,
};

/* `adverts`, by slot of a router */
struct advert_counters {
	__u64 by_fate[ADVERT_FATE_COUNT];
};

/* `scratch`: the beginning of the advert at hand, from FRAME_SHIFT on. */
struct scratch {
	__u64 word[SCRATCH_MAX / 8];
	__u64 spare[64]; /* never used: the verifier of Linux 6.1 believes that a sum may be of twice as much as it is */
};

_Static_assert(sizeof(struct box_fact) == 24, "box_fact has no hidden padding");
_Static_assert(sizeof(struct router_key) == 8, "router_key has no hidden padding");
_Static_assert(sizeof(struct router) == 24, "router has no hidden padding");
_Static_assert(sizeof(struct peer_key) == 20, "peer_key has no hidden padding");
_Static_assert(sizeof(struct sender_key) == 28, "sender_key has no hidden padding");
_Static_assert(sizeof(struct words) == 512, "8 routers share a page");
