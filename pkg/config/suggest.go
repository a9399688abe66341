package config

import (
	"fmt"
	"slices"
	"strings"
)

const (
	notSupported = "not supported by this version; leave it out"
	realtime     = "leave it out: done where the kernel permits it, and status says what it did not"
)

// keepalivedWords are keys of keepalived.conf that are called otherwise here, with what to write. A hint fits where
// the key known is allowed.
var keepalivedWords = []struct{ word, known, hint string }{
	{"vrrp_instance", "vrrp", "write vrrp.instances"},
	{"virtual_server", "services", "write services"},
	{"global_defs", "router_id", "write router_id here, at the top"},
	{"state", "priority", "leave it out: every director starts as BACKUP and the priority decides"},
	{"vrid", "virtual_router_id", "write virtual_router_id"},
	{"nopreempt", "preempt", "write preempt: false"},
	{"advert_int", "advert_interval", "write advert_interval: 1s"},
	{"virtual_ipaddress", "virtual_addresses", "write virtual_addresses: [192.168.5.100/32]"},
	{"auth_type", "type", "write type: pass"},
	{"auth_type", "authentication", `write authentication: {type: pass, password: "..."}`},
	{"auth_pass", "password", `write password: "..."`},
	{"auth_pass", "authentication", `write authentication: {type: pass, password: "..."}`},
	{"vrrp_version", "version", "write version: 3"},
	{"min_ttl", "unicast_ttl", "write unicast_ttl: 254"},
	{"virtual_ipaddress_excluded", "excluded_addresses", "write excluded_addresses: [192.168.5.102]"},
	{"virtual_routes", "routes", "write routes: [{destination: 10.0.0.0/8, via: 192.168.5.254}]"},
	{"unicast_peer", "unicast_peers", "write unicast_peers: [192.168.5.2]"},
	{"unicast_src_ip", "source_address", "write source_address: 192.168.5.1"},
	{"mcast_src_ip", "source_address", "write source_address: 192.168.5.1"},
	{"check_unicast_src", "unicast_peers", "leave it out: only the peers' adverts are accepted"},
	{"v3_checksum_as_v2", "checksum", "write checksum: rfc9568"},
	{"vrrp_startup_delay", "startup_delay", "write startup_delay: 10s"},
	{"vrrp_startup_delay", "instances", "write startup_delay: 10s in the instances"},
	{"use_vmac", "virtual_mac", "write virtual_mac: true"},
	{"no_accept", "accept", "write accept: false"},
	{"garp_master_delay", "garp", "write garp: {delay: 5s}"},
	{"garp_master_repeat", "garp", "write garp: {repeat: 5}"},
	{"garp_master_refresh", "garp", "write garp: {refresh: 60s}"},
	{"garp_master_refresh_repeat", "garp", "write garp: {refresh_repeat: 1}"},
	{"garp_lower_prio_delay", "garp", "write garp: {lower_priority_delay: 5s}"},
	{"garp_lower_prio_repeat", "garp", "write garp: {lower_priority_repeat: 5}"},
	{"garp_interval", "garp", "write garp: {interval: 1ms}"},
	{"gna_interval", "garp", "write garp: {interval: 1ms}"},
	{"track_interface", "track", "write track: {interfaces: [eth1]}"},
	{"track_script", "track", "write track: {scripts: [chk_nginx]}"},
	{"track_file", "track", "write track: {files: [{path: /run/weight, weight: 1}]}"},
	{"track_process", "track", "write track: {processes: [nginx]}"},
	{"track_bfd", "track", notSupported},
	{"notify_master", "notify", "write notify: {master: /etc/xdirector/master.sh}"},
	{"notify_backup", "notify", "write notify: {backup: /etc/xdirector/backup.sh}"},
	{"notify_fault", "notify", "write notify: {fault: /etc/xdirector/fault.sh}"},
	{"notify_stop", "notify", "write notify: {stop: /etc/xdirector/stop.sh}"},
	{"notify_master_rx_lower_pri", "notify", "write notify: {lower_priority: /etc/xdirector/again.sh}"},
	{"notify_deleted", "notify", notSupported},
	{"notify_up", "notify", "write notify: {up: /etc/xdirector/up.sh}"},
	{"notify_down", "notify", "write notify: {down: /etc/xdirector/down.sh}"},
	{"notify_fifo", "notify", "write notify: {exec: [{name: all, command: /etc/xdirector/notify.sh}]}"},
	{"smtp_alert", "notify", "write notify: {mail: [...]} at the top, with only: [...] for one of them"},
	{"smtp_alert", "webhooks", "write mail: [...], with only: [...] for one instance or service"},
	{"smtp_server", "notify", "write notify: {mail: [{host: ..., ...}]}"},
	{"notification_email", "notify", "write notify: {mail: [{to: [...], ...}]}"},
	{"notification_email_from", "notify", "write notify: {mail: [{from: ..., ...}]}"},
	{"script_user", "notify", "write user in each notify; it is nobody where it is left out"},
	{"vrrp_rt_priority", "instances", realtime},
	{"vrrp_no_swap", "instances", realtime},
	{"vrrp_rlimit_rttime", "instances", realtime},
	{"vrrp_script", "scripts", "write scripts"},
	{"vrrp_script", "vrrp", "write vrrp.scripts"},
	{"vrrp_sync_group", "sync_groups", "write sync_groups"},
	{"vrrp_sync_group", "vrrp", "write vrrp.sync_groups"},
	{"group", "instances", "write instances: [VI_1, VI_2]"},
	{"script", "command", "write command: [/usr/local/bin/check]"},
	{"init_fail", "command", "leave it out: a script is bad until it was good"},
	{"dev", "interface", "write interface"},
	{"quorum", "min_up", "write min_up"},
	{"quorum_up", "quorum", "write notify: {up: /etc/xdirector/up.sh}"},
	{"quorum_down", "quorum", "write notify: {down: /etc/xdirector/down.sh}"},
	{"inhibit_on_failure", "on_down", "write on_down: keep-weight-0"},
	{"inhibit_on_failure", "address", "write on_down: keep-weight-0 in the service"},
	{"sorry_server_inhibit", "sorry_server", "leave it out: flows of the sorry server are scheduled afresh when it leaves"},
	{"uthreshold", "max_connections", "write max_connections"},
	{"lthreshold", "max_connections", "write max_connections alone: a real server takes new connections again as soon as it has fewer"},
	{"alpha", "on_down", "leave it out: a new real server is up until its first check"},
	{"omega", "on_down", "leave it out"},
	{"lb_algo", "scheduler", "write scheduler: rr"},
	{"lvs_sched", "scheduler", "write scheduler: rr"},
	{"lb_kind", "forwarding", "write forwarding: direct"},
	{"lvs_method", "forwarding", "write forwarding: direct"},
	{"persistence_timeout", "persistence", "write persistence: {timeout: 50s}"},
	{"persistence_granularity", "persistence", "write persistence: {timeout: 50s, prefix: 24}"},
	{"fwmark", "firewall_mark", "write firewall_mark: 7"},
	{"delay_loop", "check", "write check: {type: tcp, interval: 6s}"},
	{"delay_loop", "interval", "write interval: 6s"},
	{"real_server", "real_servers", "write real_servers"},
	{"connect_timeout", "timeout", "write timeout: 5s"},
	{"connect_port", "port", "write port"},
	{"retry", "retries", "write retries: 1"},
	{"nb_get_retry", "retries", "write retries: 1"},
	{"delay_before_retry", "retry_delay", "write retry_delay: 1s"},
}

func keepalivedHint(word string, fields []field) string {
	for _, k := range keepalivedWords {
		if k.word == word && slices.ContainsFunc(fields, func(f field) bool { return f.key == k.known }) {
			return k.hint
		}
	}
	return ""
}

// DidYouMean returns ` (did you mean "x"?)` for the name nearest to a mistaken one, or nothing when none is near.
func DidYouMean(word string, names []string) string { return didYouMean(word, names) }

// didYouMean returns ` (did you mean "x"?)` for the candidate nearest to word, or nothing when none is near.
func didYouMean(word string, candidates []string) string {
	word = strings.ToLower(word)
	if len(word) > 64 {
		return ""
	}
	nearest, least := "", 2+len(word)/5
	for _, c := range candidates {
		away := distance(word, strings.ToLower(c))
		if len(word) >= 3 && (strings.HasPrefix(c, word) || strings.HasPrefix(word, c)) {
			away = min(away, 1)
		}
		if away < least && away < len(c) {
			nearest, least = c, away
		}
	}
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", nearest)
}

// Distance is how far two names are apart: the number of bytes to insert, remove, replace or swap with their neighbour
// to get from a to b.
func Distance(a, b string) int { return distance(a, b) }

func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replaced := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
