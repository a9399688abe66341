/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Adverts for our own virtual routers. What nobody could use is dropped before the kernel's stack has any work with it,
 * and so is what comes too fast; of each sender and reason one a second passes, so that user space sees and tells it.
 * User space checks all of it again: here everything doubtful passes. A BACKUP may leave the repeats of its MASTER's
 * advert to us: they move a timer and end here.
 */
#pragma once

#include "include/bpf_endian.h"
#include "maps.h"
#include "parse.h"
#include "forward.h"

/* Set by the loader; of these programs alone, so that a timer that an earlier one armed is noticed. */
volatile const __u64 program_stamp;

#define SECOND 1000000000ULL
#define MILLISECOND 1000000ULL

/* An advert every 10 ms is as fast as the protocol goes, and a MASTER may answer another as often. */
#define SENDER_RATE 300
#define SENDER_BURST 100
#define ROUTER_RATE 1000
#define ROUTER_BURST 300

#define IP_START (FRAME_SHIFT + sizeof(struct ethernet_header)) /* in the scratch memory, as all offsets here */
#define OPTIONS_MAX 40
#define CHUNK 512 /* the most that bpf_csum_diff takes */

struct vrrp_header {
	__u8 version_type;
	__u8 vrid;
	__u8 priority;
	__u8 count;
	__u8 auth_type; /* version 2; in version 3 the interval is here too */
	__u8 interval;
	__be16 checksum;
};

_Static_assert(IP_START + 20 + OPTIONS_MAX + MESSAGE_MAX + 8 <= SCRATCH_MAX, "any message that is read fits");
_Static_assert(IP_START % 4 == 0, "what sums are made of is aligned");

/* Offsets have 64 bits, see is_suspect. */
struct advert {
	struct scratch *scratch;
	struct router *router;
	struct words *words;
	struct timer *timer;
	__u64 message; /* where the VRRP message begins */
	__u64 length;  /* of it, by the IP header; what stands behind its addresses included */
	__u64 end;     /* of the IP packet */
	__u64 frame_end;
	__u64 now;
	__u32 slot;
	__u32 family; /* 4 or 6 */
};

static __always_inline struct ipv4_header *ipv4_of(const struct advert *a)
{
	return (void *)a->scratch + IP_START;
}

static __always_inline struct ipv6_header *ipv6_of(const struct advert *a)
{
	return (void *)a->scratch + IP_START;
}

static __always_inline struct vrrp_header *message_of(const struct advert *a)
{
	return (void *)a->scratch + (a->message & 0x7f);
}

/* False: whose it is can't be told. */
static __always_inline int read_advert(struct xdp_md *ctx, struct advert *a)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	__u64 size = data_end - data, header, ip_length;
	const __be16 *ethertype;
	__u32 index = 0;

	a->scratch = bpf_map_lookup_elem(&scratch, &index);
	if (!a->scratch)
		return 0;
	a->frame_end = FRAME_SHIFT + size;
	if (size > SCRATCH_MAX - FRAME_SHIFT - 8)
		size = SCRATCH_MAX - FRAME_SHIFT - 8;
	barrier_var(size); /* the verifier wants to see both bounds of what is used */
	if (size < sizeof(struct ethernet_header) || bpf_xdp_load_bytes(ctx, 0, (void *)a->scratch + FRAME_SHIFT, size))
		return 0;
	ethertype = (void *)a->scratch + FRAME_SHIFT + 12;
	if (*ethertype == bpf_htons(ETHERTYPE_IPV4)) {
		header = (ipv4_of(a)->version_ihl & 0x0f) * 4;
		ip_length = bpf_ntohs(ipv4_of(a)->total_length);
		a->family = 4;
	} else {
		if (*(__u8 *)ipv6_of(a) >> 4 != 6)
			return 0;
		header = sizeof(struct ipv6_header);
		ip_length = header + bpf_ntohs(ipv6_of(a)->payload_length);
		a->family = 6;
	}
	a->message = IP_START + header;
	if (ip_length < header + 2 || a->message + 2 > a->frame_end)
		return 0;
	a->length = ip_length - header;
	a->end = IP_START + ip_length;
	return 1;
}

static __always_inline const __u8 *source_of(const struct advert *a)
{
	return a->family == 4 ? (__u8 *)&ipv4_of(a)->source : ipv6_of(a)->source;
}

/* Into 16 zeroes. */
static __always_inline void copy_source(__u8 *to, const struct advert *a)
{
	if (a->family == 4)
		__builtin_memcpy(to, &ipv4_of(a)->source, 4);
	else
		__builtin_memcpy(to, ipv6_of(a)->source, 16);
}

static __always_inline int same_address(const struct advert *a, const __u8 *left, const __u8 *right)
{
	const __u32 *x = (const __u32 *)left, *y = (const __u32 *)right;

	if (a->family == 4)
		return x[0] == y[0];
	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline int is_own_source(const struct advert *a, const __u8 *address)
{
	return a->router->flags & ROUTER_SOURCE && same_address(a, address, a->router->source);
}

/* To the group, 224.0.0.18 or ff02::12, or to our own address. */
static __always_inline int is_addressed_to_us(const struct advert *a)
{
	const __u8 *destination;
	const __u32 *word;

	if (a->family == 4) {
		if (ipv4_of(a)->destination == bpf_htonl(0xe0000012))
			return 1;
		destination = (__u8 *)&ipv4_of(a)->destination;
	} else {
		destination = ipv6_of(a)->destination;
		word = (const __u32 *)destination;
		if (word[0] == bpf_htonl(0xff020000) && !word[1] && !word[2] && word[3] == bpf_htonl(0x12))
			return 1;
	}
	return is_own_source(a, destination);
}

static __always_inline int find_router(struct advert *a)
{
	struct router_key key = {.interface = own_interface, .family = a->family, .vrid = message_of(a)->vrid};

	a->router = bpf_map_lookup_elem(&routers, &key);
	if (!a->router || !is_addressed_to_us(a))
		return 0;
	a->slot = a->router->slot;
	a->words = bpf_map_lookup_elem(&words, &a->slot);
	a->timer = bpf_map_lookup_elem(&timers, &a->slot);
	return a->words && a->timer;
}

/* Of so many bytes, a multiple of 4, from an offset below 128. */
static __always_inline __u64 sum_of(const struct advert *a, __u64 from, __u64 length)
{
	__u64 sum = 0;

	for (int i = 0; i < MESSAGE_MAX / CHUNK; i++) {
		__u64 part = length < CHUNK ? length : CHUNK;

		if (!part)
			break;
		sum = (__u32)bpf_csum_diff(0, 0, (void *)a->scratch + (from & 0x7f) + i * CHUNK, part & (2 * CHUNK - 4), sum);
		length -= part;
	}
	return sum;
}

static __always_inline int is_right(__u64 sum)
{
	for (int i = 0; i < 4; i++)
		sum = (sum >> 16) + (sum & 0xffff);
	return sum == 0xffff;
}

/* RFC 5798 has a pseudo-header in the checksum of version 3; RFC 9568 has none over IPv4. Either will do. */
static __always_inline int is_right_message(const struct advert *a, __u64 length)
{
	__u64 sum = sum_of(a, a->message, (length + 3) & ~3ULL);

	if (a->family == 4 && is_right(sum))
		return 1;
	if (a->router->version == 2)
		return 0;
	sum += bpf_htons(PROTOCOL_VRRP) + bpf_htons(length);
	if (a->family == 4)
		return is_right(sum + ipv4_of(a)->source + ipv4_of(a)->destination);
	return is_right(sum + sum_of(a, IP_START + 8, 32));
}

static __always_inline int is_right_header(const struct advert *a)
{
	return a->family == 6 || is_right(sum_of(a, IP_START, a->message - IP_START));
}

static __always_inline int is_fragment(const struct advert *a)
{
	return a->family == 4 && ipv4_of(a)->fragment & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK);
}

static __always_inline int is_echo(const struct advert *a)
{
	__u32 slot = own_slot;
	struct interface *own = bpf_map_lookup_elem(&interfaces, &slot);

	if (own && same_mac((void *)a->scratch + FRAME_SHIFT + 6, own->mac))
		return 1;
	return is_own_source(a, source_of(a));
}

static __always_inline int is_peer(const struct advert *a)
{
	struct peer_key key = {.slot = a->slot};

	if (!(a->router->flags & ROUTER_UNICAST))
		return 1;
	copy_source(key.address, a);
	return bpf_map_lookup_elem(&peers, &key) != 0;
}

/* Why nobody could use the advert; ADVERT_PASSED: there is nothing wrong. */
static __always_inline enum advert_fate fault_of(const struct advert *a)
{
	const struct vrrp_header *message = message_of(a);
	__u64 needed;
	__u8 *padding;

	if (a->length > MESSAGE_MAX)
		return ADVERT_PASSED;
	if (a->end > a->frame_end)
		return ADVERT_LENGTH;
	/* Sums are made of 4 bytes at a time, templates compared 8 at a time. */
	padding = (void *)a->scratch + (a->end & (SCRATCH_MAX - 1));
	if (a->end > SCRATCH_MAX - 8)
		return ADVERT_PASSED;
	__builtin_memset(padding, 0, 8);

	if (!is_right_header(a))
		return ADVERT_HEADER;
	if (is_fragment(a))
		return ADVERT_FRAGMENT;
	if ((a->family == 4 ? ipv4_of(a)->ttl : ipv6_of(a)->hop_limit) < a->router->lowest_ttl)
		return ADVERT_TTL;
	if (a->length < sizeof(*message))
		return ADVERT_LENGTH;
	if (message->version_type >> 4 != a->router->version)
		return ADVERT_VERSION;
	if ((message->version_type & 0x0f) != 1)
		return ADVERT_TYPE;
	if (!message->count)
		return ADVERT_ADDRESS_COUNT;
	needed = sizeof(*message) + message->count * (a->family == 4 ? 4 : 16);
	if (a->router->version == 2)
		needed += 8;
	if (a->length < needed)
		return ADVERT_LENGTH;
	/* RFC 9568 5.2.8: the sum is of the message "ending after the last IPv4 address". Who puts something behind that
	 * may think otherwise. */
	if (!is_right_message(a, needed) && (a->length == needed || !is_right_message(a, a->length)))
		return ADVERT_CHECKSUM;
	/* RFC 9568 5.2.6: the four bits above the interval of version 3 are "ignored on reception". */
	if (!message->interval && (a->router->version == 2 || !(message->auth_type & 0x0f)))
		return ADVERT_INTERVAL;
	if (is_echo(a))
		return ADVERT_ECHO;
	return is_peer(a) ? ADVERT_PASSED : ADVERT_SOURCE;
}

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

/* The second stage: what passes of all senders together. Whoever invents senders finds nothing but this. */
static __always_inline int router_takes(struct advert *a)
{
	const __u64 cost = SECOND / ROUTER_RATE;

	if (is_full(a->timer->rate, cost, ROUTER_BURST, a->now))
		return 0;
	a->timer->rate = take_turn(a->timer->rate, cost, a->now);
	return 1;
}

static __always_inline struct sender_key sender_of(const struct advert *a, enum advert_fate reason)
{
	struct sender_key key = {.slot = a->slot, .reason = reason};

	if (reason == ADVERT_PASSED)
		__builtin_memcpy(key.mac, (void *)a->scratch + FRAME_SHIFT + 6, sizeof(key.mac));
	copy_source(key.address, a);
	return key;
}

/* Is this the one of its sender that user space sees this second? */
static __always_inline int is_sample(struct advert *a, enum advert_fate reason)
{
	struct sender_key key = sender_of(a, reason);
	__u64 *known = bpf_map_lookup_elem(&senders, &key);
	__u64 next = a->now + SECOND, due;

	if (known) {
		due = *known;
		if (a->now < due || !router_takes(a))
			return 0;
		return __sync_val_compare_and_swap(known, due, next) == due;
	}
	return router_takes(a) && bpf_map_update_elem(&senders, &key, &next, BPF_NOEXIST) == 0;
}

/* What changes who is MASTER must not drown in a flood: a first priority 0, and each priority above all others. */
static __always_inline int is_news(struct advert *a)
{
	struct timer *timer = a->timer;
	__u32 priority = message_of(a)->priority;

	if (a->now - timer->period >= SECOND) {
		timer->period = a->now;
		timer->highest = 0;
		timer->resigned = 0;
	}
	if (!priority) {
		if (timer->resigned)
			return 0;
		timer->resigned = 1;
		return 1;
	}
	if (priority <= timer->highest)
		return 0;
	timer->highest = priority;
	return 1;
}

static __always_inline int is_in_time(struct advert *a)
{
	const __u64 cost = SECOND / SENDER_RATE;
	struct sender_key key;
	__u64 *known, next;

	if (is_news(a))
		return 1;
	key = sender_of(a, ADVERT_PASSED);
	known = bpf_map_lookup_elem(&senders, &key);
	if (known) {
		if (is_full(*known, cost, SENDER_BURST, a->now) || !router_takes(a))
			return 0;
		*known = take_turn(*known, cost, a->now);
		return 1;
	}
	if (!router_takes(a))
		return 0;
	next = a->now + cost;
	bpf_map_update_elem(&senders, &key, &next, BPF_ANY);
	return 1;
}

/* The MASTER's last advert once more, byte for byte? The id of the IP packet and with it the checksum of its header may
 * be others: that checksum was verified. */
static __always_inline int is_repeat(struct advert *a)
{
	struct ipv4_header *ip = ipv4_of(a);
	__be16 id = ip->id, checksum = ip->checksum;
	int same = 1;

	if (a->end > TEMPLATE_MAX || *(volatile __u64 *)&a->words->length != a->end)
		return 0;
	if (a->family == 4)
		ip->id = ip->checksum = 0;
	for (__u32 i = 0; i < TEMPLATE_MAX / 8; i++) {
		if (i * 8 >= a->end)
			break;
		if (a->scratch->word[i] != a->words->template[i]) {
			same = 0;
			break;
		}
	}
	if (a->family == 4) {
		ip->id = id;
		ip->checksum = checksum;
	}
	return same;
}

/* A whole memory barrier too: what is read after it is at least as new. */
static __always_inline __u64 read_seen(struct words *of)
{
	return __sync_fetch_and_add(&of->seen, 0);
}

/* Runs when a timer has run out, maybe while the next advert comes in on another CPU: time is compared here, and again
 * in user space. */
static int wake(void *map, __u32 *slot, struct timer *timer)
{
	struct words *own = bpf_map_lookup_elem(&words, slot);
	struct event event = {.slot = *slot};
	__u64 seen, now;
	__s64 left;

	(void)map;
	if (!own)
		return 0;
	seen = read_seen(own);
	if (!seen)
		return 0;
	now = bpf_ktime_get_ns();
	left = seen + own->down - now;
	if (left > 0)
		bpf_timer_start(&timer->timer, left, 0);
	else if (bpf_ringbuf_output(&events, &event, sizeof(event), BPF_RB_FORCE_WAKEUP))
		bpf_timer_start(&timer->timer, MILLISECOND, 0); /* no room now */
	return 0;
}

/* False: the timer can't be had, for example because no process holds the timers any more. */
static __always_inline int arm(struct timer *timer, __u64 down)
{
	if (timer->armed_by == program_stamp && bpf_timer_start(&timer->timer, down, 0) == 0)
		return 1;
	/* The first time, or an earlier program's: that one would stay loaded for its callback. */
	bpf_timer_init(&timer->timer, &timers, CLOCK_MONOTONIC);
	if (bpf_timer_set_callback(&timer->timer, wake) || bpf_timer_start(&timer->timer, down, 0))
		return 0;
	timer->armed_by = program_stamp;
	return 1;
}

/*
 * Takes a repeat as a sign of life. True: it is enough that we know. `seen` was read before the template was compared.
 *
 * That word says both whether repeats are absorbed and when the last one was. User space ends the absorbing by
 * exchanging it for 0, and has then in hand what it was: a program that is in the middle of this on another CPU finds
 * another value than it had read, and its advert passes. So nothing is absorbed after the exchange, and nobody has to
 * wait for the programs. The value is a generation as well: an absorbing that began later began at another moment, and
 * a template that was half written meanwhile absorbs nothing.
 */
static __always_inline int absorb(struct advert *a, __u64 seen)
{
	__u32 first = 0;
	struct words *shared = bpf_map_lookup_elem(&words, &first);

	if (!seen || !shared)
		return 0;
	a->now = bpf_ktime_get_ns(); /* not before seen, whoever wrote that */
	if (a->now >= *(volatile __u64 *)&shared->lease || *(volatile __u64 *)&a->words->gate)
		return 0;
	if (!arm(a->timer, *(volatile __u64 *)&a->words->down))
		return 0;
	return __sync_val_compare_and_swap(&a->words->seen, seen, a->now) == seen;
}

static __always_inline enum advert_fate repeat_fate(struct advert *a, __u64 seen)
{
	int absorbed = absorb(a, seen);
	__u64 gap = a->now - a->timer->passed;

	if (absorbed && gap < SECOND)
		return ADVERT_ABSORBED;
	/* Of repeats one is as good as the other: a flood of them keeps none from user space that it needs. */
	if (!absorbed && gap < MILLISECOND)
		return ADVERT_RATE;
	a->timer->passed = a->now;
	return absorbed ? ADVERT_SAMPLED : ADVERT_PASSED;
}

static __always_inline enum advert_fate fate_of(struct advert *a)
{
	enum advert_fate fault;
	__u64 seen;

	if (!(a->router->flags & ROUTER_FILTER))
		return ADVERT_PASSED;
	fault = fault_of(a);
	if (fault != ADVERT_PASSED)
		return is_sample(a, fault) ? ADVERT_SAMPLED : fault;
	seen = read_seen(a->words);
	if (is_repeat(a))
		return repeat_fate(a, seen);
	return is_in_time(a) ? ADVERT_PASSED : ADVERT_RATE;
}

/* Copies the advert for whoever looks on. */
static __always_inline void show(const struct advert *a, enum advert_fate fate)
{
	struct capture *copy;
	struct words *shared;
	__u32 first = 0;
	__u64 until, now;

	shared = bpf_map_lookup_elem(&words, &first);
	until = shared ? *(volatile __u64 *)&shared->capture : 0;
	if (!until)
		return;
	now = bpf_ktime_get_ns();
	if (now >= until)
		return;
	copy = bpf_ringbuf_reserve(&captured, sizeof(*copy), 0);
	if (!copy)
		return;
	copy->time = now;
	copy->interface = own_interface;
	copy->slot = a->slot;
	copy->fate = fate;
	copy->length = a->frame_end - FRAME_SHIFT;
	__builtin_memcpy(copy->frame, a->scratch->word, sizeof(copy->frame));
	bpf_ringbuf_submit(copy, 0);
}

/* Decides on one advert and counts it for its router. A function of its own, so that the packets of services don't share
 * registers and stack with it. Returns the fate; ADVERT_FATE_COUNT: it is not for us. */
static __noinline __u32 judge_advert(struct xdp_md *ctx)
{
	struct advert a = {};
	struct advert_counters *counters;
	enum advert_fate fate = ADVERT_FATE_COUNT;

	if (!read_advert(ctx, &a))
		return ADVERT_FATE_COUNT;
	if (find_router(&a)) {
		a.now = bpf_ktime_get_ns();
		fate = fate_of(&a);
		counters = bpf_map_lookup_elem(&adverts, &a.slot);
		if (counters && fate < ADVERT_FATE_COUNT)
			counters->by_fate[fate]++;
	}
	show(&a, fate);
	return fate;
}

static __always_inline struct decision decide_advert(struct xdp_md *ctx)
{
	switch (judge_advert(ctx)) {
	case ADVERT_FATE_COUNT:
		return pass(VERDICT_PASS_NOT_OURS);
	case ADVERT_PASSED:
	case ADVERT_SAMPLED:
		return pass(VERDICT_PASS_ADVERT);
	case ADVERT_ABSORBED:
		return drop(DROP_ADVERT_ABSORBED);
	case ADVERT_RATE:
		return drop(DROP_ADVERT_RATE);
	default:
		return drop(DROP_ADVERT_REFUSED);
	}
}
