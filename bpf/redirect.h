/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames that the kernel loses after our verdict. A redirect is carried out when the program has ended: what comes of it
 * the kernel says by its tracepoints alone, which every network namespace shares.
 */
#pragma once

#include "maps.h"

/* Set by the loader: the namespace of our interfaces, as /proc/PID/ns/net names it. */
volatile const __u32 own_namespace;

/* As much of the kernel's own types as is read here; where it lies is found out when the program is loaded. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
};
#pragma clang attribute pop

static __always_inline int is_ours(__u32 index)
{
	for (__u32 slot = 0; slot < INTERFACES_MAX; slot++) {
		__u32 at = slot;
		struct interface *own = bpf_map_lookup_elem(&interfaces, &at);

		if (own && own->index == index)
			return 1;
	}
	return 0;
}

static __noinline int note_loss(__u32 from, __u32 to, __s32 error, __u64 lost)
{
	struct redirect_key key = {.from = from, .to = to, .error = error};
	__u64 *frames, none = 0;

	/* The frames of a bond come from its members. */
	if (!is_ours(from) && !is_ours(to))
		return 0;
	frames = bpf_map_lookup_elem(&redirect_errors, &key);
	if (!frames) {
		bpf_map_update_elem(&redirect_errors, &key, &none, BPF_NOEXIST);
		frames = bpf_map_lookup_elem(&redirect_errors, &key);
	}
	if (frames)
		__sync_fetch_and_add(frames, lost);
	return 0;
}

/* The kernel didn't even begin: no such interface, no way to send there, the frame too long. */
SEC("tp_btf/xdp_redirect_err")
int xdirector_refused(__u64 *ctx)
{
	struct net_device *from = (void *)ctx[0];

	if (from->nd_net.net->ns.inum != own_namespace)
		return 0;
	return note_loss(from->ifindex, ctx[6], ctx[3], 1);
}

/* The driver there took only some of a bulk, or none. */
SEC("tp_btf/xdp_devmap_xmit")
int xdirector_lost(__u64 *ctx)
{
	struct net_device *from = (void *)ctx[0], *to = (void *)ctx[1];
	__s32 lost = ctx[3];

	if (lost <= 0 || from->nd_net.net->ns.inum != own_namespace)
		return 0;
	return note_loss(from->ifindex, to->ifindex, ctx[4], lost);
}
