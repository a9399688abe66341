/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is kept about frames: their verdicts, the interfaces, and what somebody who looks on gets. See layout.h. */
#pragma once

#include "layout_services.h"

#define INTERFACES_MAX 64
#define SIBLINGS_MAX 8	  /* interfaces whose frames come by one and the same network */
#define CAPTURED_MAX 256

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

/* `frames`, by CPU and slot of an interface */
struct interface_counters {
	__u64 verdicts[VERDICT_COUNT];
	__u64 drops[DROP_COUNT];
	__u64 unstored; /* new flows that found no place */
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

/* `redirect_errors`: frames lost after the verdict; the value is how many */
struct redirect_key {
	__u32 from; /* interface indexes */
	__u32 to;
	__s32 error; /* of the kernel, negative; 0: the driver had no room */
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
