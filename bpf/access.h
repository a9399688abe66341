/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which clients a service has: the longest prefix in its list decides. */
#pragma once

#include "maps.h"

static __always_inline int is_denied(__u32 list, const struct address *client)
{
	struct rule_key key = {.length = 8 * (sizeof(key.list) + sizeof(key.address)), .list = list, .address = *client};
	__u32 *denied = bpf_map_lookup_elem(&rules, &key);

	return denied && *denied;
}
