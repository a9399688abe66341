/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "include/kernel.h"

/* An IPv4 address is the first word; the others are zero then. Network byte order. */
struct address {
	__be32 word[4];
};
