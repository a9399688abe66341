/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services, their real servers, and what clients may do. See layout.h. */
#pragma once

#include "layout_flows.h"

#define SERVICES_MAX 16384
#define SERVERS_MAX 32768
#define DIRECTORY_BITS 16 /* of the number of places in each half of `vips` and `ports` */
#define PROBES 16	  /* a look-up there ends after so many places */
#define RING_LINE_WORDS 16
#define RULES_MAX (1 << 20)

/*
 * `vips` and `ports` say which service a packet belongs to, without a helper call: see service.h. Each has two halves, of which
 * `settings` names the one in use. User space writes the other one whole and then changes over: all services at once.
 */
struct vip {
	struct address address;
	__u32 family; /* 4 or 6; 0: the place is free */
	__u32 levels; /* bit n: some of its services are in `ports` by the upper 16 - n bits of the port */
	__u32 id;
	__u32 slot; /* of the virtual router that holds it, in `words`; 0: none */
};

/* The value is a service id. */
struct port {
	__u64 key; /* see port_key; 0: the place is free */
	__u64 service;
};

/* `prefixes`: virtual addresses that are whole networks; looked at when no single address matches. IPv4 lies in the last word,
 * behind ::ffff. */
struct prefix_key {
	__u32 length;
	__be32 word[4];
};

/* `settings`: one entry */
struct settings {
	__u32 half;	/* of `vips` and `ports` */
	__u32 prefixes; /* not 0: there are some */
	__u32 zero;	/* see blur */
	__u32 spare;
};

enum service_flag {
	SERVICE_USED = 1,
	SERVICE_HASHES = 2,  /* the ring is a table that the hash of a client's address points into */
	SERVICE_REFUSES = 4, /* a packet that is no SYN and has no flow */
	SERVICE_GROUPED = 8, /* its clients may be bound by another service of its group */
	SERVICE_LEAST = 16,  /* the server with the fewest active flows for its weight gets the next one */
	SERVICE_LIMITED = 32, /* `limits` says what its clients may do */
	SERVICE_LOCAL = 64,  /* this box is one of its servers */
	SERVICE_CAPPED = 128, /* of its servers some have no more than so many flows */
};

/* `services`, by id; id 0 is never used. What a packet needs comes first. */
struct service {
	__u32 flags;
	__u32 timeouts[FLOW_PHASES];	  /* units */
	__u32 persistence;		  /* seconds; 0: none */
	__u32 scope;			  /* in which a client is bound; services of a group share one */
	struct address client_mask;	  /* of the bits that count of a client's address */
	__u32 new_flows;		  /* so many are stored in a unit of time */
	/* What the packet came for. */
	struct address address;
	__u32 prefix;	  /* as user space has it: 0 is one address */
	__u16 first_port; /* host byte order */
	__u16 last_port;  /* 0: it is the first one */
	__u8 protocol;
	__u8 family;
	__u8 padding[2];
	__u32 vip; /* id */
	__u32 unused[8];
};

enum rate_kind {
	RATE_PACKETS,
	RATE_NEW, /* connections */
	RATE_COUNT,
};

struct rate {
	__u64 cost;  /* so long one takes, in parts of a tick, see rate.h; 0: there is no limit */
	__u64 burst; /* so many may come at once */
};

/* `limits`, by service id */
struct limit {
	struct rate rates[RATE_COUNT]; /* of one source */
	struct address source_mask;    /* of the bits that make a client's address one */
	__u32 list;		       /* of `rules`; 0: none */
	__u32 spare[3];
};

/* `rules`: lists of clients. The longest prefix decides; what matches none is allowed. A list is whole before a service has it,
 * and is never changed. */
struct rule_key {
	__u32 length; /* 32 and those of the prefix */
	__u32 list;
	struct address address;
};

/* `sources` */
struct source_key {
	__u32 service; /* id */
	struct address address;
};

struct source {
	__u64 full_at[RATE_COUNT]; /* see take_turn */
};

enum refusal {
	REFUSED_DENIED,
	REFUSED_RATE_PACKETS,
	REFUSED_RATE_NEW,
	REFUSED_FULL, /* a new connection that no server may have */
	REFUSAL_COUNT,
};

/* `refusals`, by service id */
struct refusals {
	__u64 by_reason[REFUSAL_COUNT];
};

/* `turns`, by service id: what packets change about a service */
struct turn {
	__u64 next;    /* counts the flows that were scheduled in turn */
	__u64 stored;  /* a unit of time and, in the lower 32 bits, how many flows were stored in it */
	__u64 flooded; /* the unit, plus one, in which they were too many last; 0: never */
	__u64 spare;
};

enum server_flag {
	SERVER_USED = 1,
	SERVER_LIVE = 2,  /* up, and we know how to reach it */
	SERVER_LOCAL = 4, /* this box */
	SERVER_FAILED = 8, /* live only for the flows that it has, until a SYN of theirs comes */
};

/* `servers`, by id; id 0 is never used. The first 12 bytes are the start of the frame as we send it. */
struct server {
	__u8 destination[6];
	__u8 source[6];
	__u32 interface; /* that the frame leaves by: its index */
	__u32 generation; /* raised whenever the id is given up, so that old flows don't hit a new server */
	__u32 service; /* id */
	__u32 flags;
	__u32 vlan;   /* id in the frame's tag; 0: none */
	struct address address;
	__u32 device; /* of user space: the interface that the kernel would send by, which may lie above the other one */
	__u32 unused[3];
};

/* `loads`, by server id. User space shares its memory. */
struct load {
	__u64 active; /* flows that are not closing; one that is forgotten counts until its place is freed */
	__u32 weight;
	__u32 cap; /* so many it may have; 0: as many as come */
};

/* `traffic`, by CPU and server id */
struct server_counters {
	__u64 packets;
	__u64 bytes;
	__u64 flows_created;
};

/*
 * `rings`, by service id: words in lines, since an array rounds every value up to 8 bytes. The first line is about the others. Of
 * these there are two halves, each with the places of the ring, and of the Maglev table behind it, which a service that schedules
 * in turn needs for what has no turn. Places hold server ids. Of a service with SERVICE_CAPPED a list follows: how many servers
 * the ring has, and each of them once. User space writes the half that is not in use and then has
 * read and written in one step what says which one is: to swap the whole array takes the kernel milliseconds.
 */
enum ring_word {
	RING_TURNS,  /* places of the ring in use; with RING_SECOND its half is the second one */
	RING_TABLE,  /* places of the table */
	RING_HALF,   /* words in a half: whole lines */
	RING_SECOND = 1 << 30,
};

struct ring_line {
	__u32 word[RING_LINE_WORDS];
};

_Static_assert(sizeof(struct vip) == 32, "two virtual addresses share a cache line");
_Static_assert(sizeof(struct port) == 16, "four ports share a cache line");
_Static_assert(sizeof(struct service) == 128, "what a packet needs of a service is one cache line");
_Static_assert(sizeof(struct limit) == 64, "the limits of a service are one cache line");
_Static_assert(sizeof(struct rule_key) == 24, "rule_key has no hidden padding");
_Static_assert(sizeof(struct source_key) == 20, "source_key has no hidden padding");
_Static_assert(sizeof(struct server) == 64, "a server is a cache line");
_Static_assert(SERVERS_MAX <= 1 << FLOW_SERVER_BITS, "a flow's state holds every server id");
