/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What lies in the maps: every struct that user space sees too. Who changes a layout or a meaning raises LAYOUT_VERSION, so that
 * an agent never reads what another version wrote.
 */
#pragma once

#include "include/kernel.h"
#include "include/bpf_helpers.h"
#include "address.h"

enum layout_version {
	LAYOUT_VERSION = 4,
};

#define INTERFACES_MAX 64
#define SIBLINGS_MAX 8	  /* interfaces whose frames come by one and the same network */
#define SERVICES_MAX 16384
#define SERVERS_MAX 32768
#define DIRECTORY_BITS 16 /* of the number of places in each half of `vips` and `ports` */
#define PROBES 16	  /* a look-up there ends after so many places */
#define SUSPECT_BITS 20
#define BOX_FACTS_MAX 65536
#define ROUTERS_MAX 1024
#define PEERS_MAX 65536
#define SENDERS_MAX 8192
#define FRAGMENTS_MAX 16384
#define TEMPLATE_MAX 448
#define CAPTURED_MAX 256
#define RING_LINE_WORDS 16
#define RULES_MAX (1 << 20)

/* What happened to a frame. Each frame has exactly one verdict. */
enum verdict {
	VERDICT_PASS_NOT_OURS,	/* not IPv4 TCP or UDP to a service */
	VERDICT_PASS_OTHER_MAC, /* a service's, but flooded to us: another box is meant */
	VERDICT_PASS_BALANCED,	/* a director has already chosen us */
	VERDICT_PASS_REFUSED,	/* no real server: our kernel refuses the connection at once */
	VERDICT_PASS_LOCAL,	/* we are the real server */
	VERDICT_PASS_ADVERT,	/* an advert for one of our virtual routers */
	VERDICT_PREVIOUS, /* no flow here, but maybe at the one who was MASTER before us */
	VERDICT_TX,
	VERDICT_REDIRECT,
	VERDICT_DROP,
	VERDICT_COUNT,
};

/* Why a frame got VERDICT_DROP. */
enum drop_reason {
	DROP_FRAGMENT,	     /* where its first one went is not known */
	DROP_FRAGMENT_SHORT, /* the header of TCP or UDP is not wholly in the first one, or changed by another one */
	DROP_HEADERS,	     /* more headers of IPv6 than anybody needs */
	DROP_NO_FLOW,	     /* a reset for a connection that we don't know, or an error about one where those are refused */
	DROP_NO_REAL_SERVER, /* and no SYN that could be refused */
	DROP_SECOND_CHANCE,  /* our successor sent it, and we don't know its flow either */
	DROP_ADVERT_REFUSED, /* `adverts` has the reason */
	DROP_ADVERT_RATE,
	DROP_ADVERT_ABSORBED,
	DROP_DENIED, /* by the service's list of clients */
	DROP_RATE_PACKETS, /* of one client, as the next one */
	DROP_RATE_NEW, /* connections */
	DROP_FULL, /* no real server may have another flow, and it is no SYN that could be refused */
	DROP_COUNT,
	DROP_MASK = 31,
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

/* What user space has switched off on an interface, and switches on again when it lets go of it. */
enum interface_restore {
	RESTORE_RX_VLAN = 1,
	RESTORE_GRO = 2,
};

/* `interfaces`, by slot: an interface with one of our programs, or whose frames one of them sees on the interface below. */
struct interface {
	__u8 mac[6];
	__u8 restore; /* enum interface_restore */
	__u8 sibling; /* slot, plus one, of the next one with frames on the same network, like a macvlan; 0: none */
	__u32 index;  /* 0: the slot is free */
};

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

enum flow_phase {
	FLOW_OPENING, /* one packet was seen, or nothing but SYN */
	FLOW_OPEN,
	FLOW_CLOSING, /* a FIN or RST was seen */
	FLOW_UDP,
	FLOW_UDP_FIRST, /* one packet was seen */
	FLOW_PHASE_COUNT,
	FLOW_PHASES = 8, /* so many values it can have */
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

struct interface_counters {
	__u64 verdicts[VERDICT_COUNT];
	__u64 drops[DROP_COUNT];
	__u64 unstored; /* new flows that found no place */
};

/* `redirect_errors`: frames lost after the verdict; the value is how many */
struct redirect_key {
	__u32 from; /* interface indexes */
	__u32 to;
	__s32 error; /* of the kernel, negative; 0: the driver had no room */
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

/* `flows`: see flow.h. */

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

struct flow_place {
	__u64 print;
	__u64 state;
};

struct flow_set {
	struct flow_place place[FLOW_WAYS];
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

/* What somebody looks at, see watch.h. */
enum watch_kind {
	WATCH_FRAMES = 1, /* of services */
	WATCH_ADVERTS = 2,
};

struct watch {
	__u64 until; /* as in `words`; 0: nobody looks */
	__u32 kinds; /* enum watch_kind */
	/* Of frames of services those for which all of this holds. */
	__u32 verdicts; /* a bit for each */
	__u32 reasons;	/* the same, of those that are dropped */
	__u16 port;	/* of either side, host byte order; 0: any */
	__u16 first_port, last_port; /* of the destination */
	__u8 protocol;	/* 0: any */
	__u8 family;	/* 4, 6; 0: any */
	struct address host, host_mask; /* source or destination */
	struct address vip, vip_mask;	/* destination */
	__u64 rate;   /* so many in 2^30 ns */
	__u64 second; /* in which `copied` counts */
	__u64 copied;
	__u64 missed; /* that were wanted */
};

/* `captured`: a frame as it came, for whoever looks on. */
struct capture {
	__u64 time;
	__u32 interface; /* index */
	__u32 kind;	 /* enum watch_kind: an advert, with the next two, or a frame with what follows them */
	__u32 slot;	 /* 0: it is for no virtual router of ours */
	__u32 fate;	 /* enum advert_fate */
	__u32 verdict;
	__u32 drop_reason;    /* with VERDICT_DROP */
	struct server server; /* zero: none has to do with it */
	__u32 length;	      /* of the whole frame */
	__u32 padding;
	__u8 frame[CAPTURED_MAX];
};

#define FRAME_SHIFT 2	  /* puts the IP header at a multiple of 4 */
#define MESSAGE_MAX 1536  /* a longer VRRP message passes unread */
#define SCRATCH_MAX 2048

/* `scratch`: the beginning of the advert at hand, from FRAME_SHIFT on. */
struct scratch {
	__u64 word[SCRATCH_MAX / 8];
	__u64 spare[64]; /* never used: the verifier of Linux 6.1 believes that a sum may be of twice as much as it is */
};

/* `adverts`, by slot of a router */
struct advert_counters {
	__u64 by_fate[ADVERT_FATE_COUNT];
};

/* `layout`: one entry, written last when the maps are made. The fields after the seed have no meaning of their own:
 * they show the generated Go the types that no other map mentions. */
struct layout {
	enum layout_version version;
	__u32 padding;
	__u64 flow_seed[FLOW_SEED_WORDS]; /* of the prints in `flows` */
	enum verdict verdict;
	enum drop_reason drop_reason;
	enum service_flag service_flag;
	enum refusal refusal;
	enum rate_kind rate_kind;
	struct source_key source_key;
	struct source source;
	enum server_flag server_flag;
	enum flow_phase flow_phase;
	enum flow_bits flow_bits;
	enum box_fact_kind box_fact_kind;
	enum advert_fate advert_fate;
	enum router_flag router_flag;
	enum watch_kind watch_kind;
	enum interface_restore interface_restore;
	struct event event;
	struct capture capture;
	struct ring_line ring_line;
	enum ring_word ring_word;
};

/* `suspects`: one entry, a bit for each value of a hash of MAC addresses; set if `boxes` may hold something about such an address.
 * It spares nearly all packets the look-ups there: with 2,000 real servers all but those of one router in 500. */
struct suspects {
	__u64 bits[1 << (SUSPECT_BITS - 6)];
};

_Static_assert(sizeof(struct vip) == 32, "two virtual addresses share a cache line");
_Static_assert(sizeof(struct port) == 16, "four ports share a cache line");
_Static_assert(sizeof(struct service) == 128, "what a packet needs of a service is one cache line");
_Static_assert(sizeof(struct limit) == 64, "the limits of a service are one cache line");
_Static_assert(sizeof(struct rule_key) == 24, "rule_key has no hidden padding");
_Static_assert(sizeof(struct source_key) == 20, "source_key has no hidden padding");
_Static_assert(sizeof(struct client_key) == 20, "client_key has no hidden padding");
_Static_assert(sizeof(struct fragment_key) == 40, "fragment_key has no hidden padding");
_Static_assert(sizeof(struct box_fact) == 24, "box_fact has no hidden padding");
_Static_assert(sizeof(struct server) == 64, "a server is a cache line");
_Static_assert(sizeof(struct flow_set) == 128, "a set is two cache lines");
_Static_assert(SERVERS_MAX <= 1 << FLOW_SERVER_BITS, "a flow's state holds every server id");

_Static_assert(sizeof(struct router_key) == 8, "router_key has no hidden padding");
_Static_assert(sizeof(struct router) == 24, "router has no hidden padding");
_Static_assert(sizeof(struct peer_key) == 20, "peer_key has no hidden padding");
_Static_assert(sizeof(struct sender_key) == 28, "sender_key has no hidden padding");
_Static_assert(sizeof(struct words) == 512, "8 routers share a page");
