/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What lies in the maps: every struct that user space sees too. Who changes a layout or a meaning raises LAYOUT_VERSION, so that
 * an agent never reads what another version wrote.
 */
#pragma once

#include "layout_frames.h"
#include "layout_services.h"
#include "layout_flows.h"
#include "layout_routers.h"

enum layout_version {
	LAYOUT_VERSION = 5,
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
