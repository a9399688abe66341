/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is remembered of packets that came before: flows (see flow.h), clients, fragments. See layout.h. */
#pragma once

#include "include/kernel.h"
#include "include/bpf_helpers.h"
#include "address.h"

#define FRAGMENTS_MAX 16384

enum flow_phase {
	FLOW_OPENING, /* one packet was seen, or nothing but SYN */
	FLOW_OPEN,
	FLOW_CLOSING, /* a FIN or RST was seen */
	FLOW_UDP,
	FLOW_UDP_FIRST, /* one packet was seen */
	FLOW_PHASE_COUNT,
	FLOW_PHASES = 8, /* so many values it can have */
};

/* The bits of a flow's state, from the lowest: server id, the server's generation, the unit of time in which the flow is
 * forgotten, its phase; the rest is zero. */
enum flow_bits {
	FLOW_SERVER_BITS = 18,
	FLOW_GENERATION_BITS = 14,
	FLOW_EXPIRES_SHIFT = 32,
	FLOW_EXPIRES_BITS = 24,
	FLOW_PHASE_SHIFT = 56,
	FLOW_PHASE_MASK = FLOW_PHASES - 1,
	FLOW_SEED_TERMS = 11, /* of a print's half: the ports, what kind of packet it is, addresses, and one without a factor */
	FLOW_SEED_WORDS = 2 * FLOW_SEED_TERMS + 1,
	FLOW_WAYS = 8,	    /* places in a set */
	FLOW_FIRST_SET = 6, /* so many flows go to the first set; then the emptier one takes the next */
};

/* `flows` */
struct flow_place {
	__u64 print;
	__u64 state;
};

struct flow_set {
	struct flow_place place[FLOW_WAYS];
};

/* `flow_hints`, by the index of a set: of each place the upper bits of the print that it was given last */
struct flow_hints {
	__u8 way[FLOW_WAYS];
};

/* `clients`: persistence */
struct client_key {
	__u32 scope;
	struct address address;
};

struct client {
	__u32 server;
	__u32 generation;
	__u64 expires; /* ticks */
};

/* `members`: the real servers of a service that shares its clients with others of a group; the value is a server id. */
struct member_key {
	__u32 service; /* id */
	struct address address;
};

/* `fragments`: what was done with the first fragment of a packet, by what all its fragments have in common. */
struct fragment_key {
	struct address source;
	struct address destination;
	__be32 id;
	__u8 family;
	__u8 protocol; /* 0 of IPv6, where the fragments of one packet may differ in it */
	__u8 padding[2];
};

struct fragment {
	__u32 outcome;	  /* see outcome.h */
	__u32 generation; /* of the server */
	__u64 expires;	  /* ticks */
};

/* An IP packet, as far as its headers were read. */
struct ip_packet {
	struct address source;
	struct address destination;
	__u32 at;     /* what stands behind the headers, counted from the beginning of the frame */
	__u32 end;    /* of the packet */
	__u32 offset; /* of a fragment, in bytes */
	__be32 id;    /* with fragment */
	__u8 family;
	__u8 protocol; /* behind the headers */
	__u8 fragment; /* it is one */
	__u8 more;     /* fragments */
};

/* `quotes`: the packet at hand and, of an error, the one that it quotes: the stack is too short for both. Each program has its own. */
struct ip_packets {
	struct ip_packet outer;
	struct ip_packet quoted;
};

_Static_assert(sizeof(struct client_key) == 20, "client_key has no hidden padding");
_Static_assert(sizeof(struct fragment_key) == 40, "fragment_key has no hidden padding");
_Static_assert(sizeof(struct flow_set) == 128, "a set is two cache lines");
