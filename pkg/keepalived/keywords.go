package keepalived

// rule says what becomes of a keyword that no code converts, with everything in its braces.
type rule struct {
	outcome Outcome
	reason  string
}

func drop(reason string) rule { return rule{NotNeeded, reason} }
func lack(reason string) rule { return rule{Unsupported, reason} }

// The places where keywords stand. A list is one whose lines are values, not keywords.
const (
	atRoot     = "the file itself"
	atGlobal   = "global_defs"
	atInstance = "vrrp_instance"
	atGroup    = "vrrp_sync_group"
	atScript   = "vrrp_script"
	atFile     = "track_file"
	atProcess  = "vrrp_track_process"
	atServer   = "virtual_server"
	atReal     = "real_server"
	atCheck    = "a check"
	atURL      = "url"
)

const (
	noProcesses = "the processes are made and guarded by the service itself; what it does where the kernel permits it, xdirector status shows"
	noFirewall  = "packet filters of virtual addresses are made and removed by the instance itself"
	noSNMP      = "there is no SNMP; Prometheus reads /metrics, and docs/metrics.md has what there is"
	noDBus      = "there is no D-Bus; xdirector events and the control socket tell the same"
	noBuffers   = "buffers are sized by what is in the file"
	noBFD       = "there is no BFD; shorter advert_int (VRRP version 3, from 10ms) finds a dead director as fast"
	noFIFO      = "there are no FIFOs; notify.exec runs a command for each event, with the same words, and more of them in its environment"
	noStatic    = "addresses, routes and rules that stay are the business of the box's own network configuration"
	noReload    = "a reload reads the whole file first, and changes nothing if something is wrong in it"
	noInclude   = "a file that is missing is in this report in any case"
	noNamespace = "write NetworkNamespacePath= into the unit instead: ip netns has its names below /run/netns"
	noLink      = "the kernel's own news of the link are used"
	oneBox      = "names of files and sockets are in the configuration: state_dir, control.socket, dataplane.pin_path"
	noSource    = "a check goes out as the box's routes have it"
)

// rules lists what is known of each place besides what code converts; nil: it is no place.
func rules(place string) map[string]rule {
	switch place {
	case atRoot:
		return rootRules
	case atGlobal:
		return globalRules
	case atInstance:
		return instanceRules
	case atGroup:
		return groupRules
	case atScript, atFile, atProcess:
		return trackRules
	case atServer:
		return serverRules
	case atReal:
		return realRules
	case atCheck:
		return checkRules
	case atURL:
		return urlRules
	}
	return nil
}

var rootRules = map[string]rule{
	"net_namespace":            lack(noNamespace),
	"net_namespace_ipvs":       lack("checks and forwarding are in one network namespace"),
	"namespace_with_ipsets":    drop(noFirewall),
	"instance":                 drop(oneBox),
	"use_pid_dir":              drop(oneBox),
	"linkbeat_use_polling":     drop(noLink),
	"child_wait_time":          drop(noProcesses),
	"linkbeat_interfaces":      drop(noLink),
	"track_group":              lack("what static addresses, routes and rules depend on; " + noStatic),
	"static_ipaddress":         lack(noStatic),
	"static_routes":            lack(noStatic),
	"static_rules":             lack(noStatic),
	"bfd_instance":             lack(noBFD),
	"garp_group":               lack("an instance has an interval of its own: garp: {interval}; interfaces don't share one"),
	"interface_up_down_delays": lack("an interface that is down counts at once; a flapping one keeps the box out of the election"),
	"SSL":                      lack("checks show no certificate of their own, and check that of a real server against the box's authorities, unless insecure: true is written"),
}

var globalRules = map[string]rule{
	"tmp_config_directory": drop("nothing is written aside"), "config_save_dir": lack("nothing is saved; xdirector plan shows what a reload would change"),
	"process_names": drop(noProcesses), "process_name": drop(noProcesses), "vrrp_process_name": drop(noProcesses),
	"checker_process_name": drop(noProcesses), "bfd_process_name": drop(noBFD),
	"startup_script":         lack("write ExecStartPre= into a drop-in of the unit"),
	"startup_script_timeout": lack("write TimeoutStartSec= into a drop-in of the unit"), "shutdown_script": lack("write ExecStopPost= into a drop-in of the unit"),
	"shutdown_script_timeout": lack("write TimeoutStopSec= into a drop-in of the unit"),
	"smtp_helo_name":          drop("the name of the box is said"), "smtp_connect_timeout": drop("a mail is tried for 30s, and five times more"),
	"checker_log_all_failures": drop("the reason of a failure is logged and counted"), "no_email_faults": lack("write kinds or level into notify.mail"),
	"vrrp_mcast_group4": lack("adverts go to 224.0.0.18"), "vrrp_mcast_group6": lack("adverts go to ff02::12"),
	"default_interface": drop("what it is the default of is converted with it"),
	"lvs_sync_daemon":   lack("connections are not given to the other director yet; scheduler mh sends them to the same real server from both"),
	"lvs_flush":         drop("only what is xdirector's own is ever removed"), "lvs_flush_on_stop": drop("only what is xdirector's own is ever removed"),
	"vrrp_garp_extra_if":        lack("write garp: {refresh} into the instance, which refreshes all of its addresses"),
	"vrrp_lower_prio_no_advert": lack("a MASTER that hears a lower one always says so at once"), "vrrp_higher_prio_send_advert": lack("a MASTER that hears a higher one goes without a word"),
	"nftables": drop(noFirewall), "nftables_priority": drop(noFirewall), "nftables_counters": drop(noFirewall), "nftables_ifindex": drop(noFirewall),
	"nftables_ipvs": drop("each address and port of a group is a service, or name them by one network"), "nftables_ipvs_priority": drop("there are no such rules"),
	"nftables_ipvs_start_fwmark": drop("there are no such rules"), "vrrp_iptables": drop(noFirewall), "vrrp_ipsets": drop(noFirewall),
	"disable_local_igmp": drop("no membership is reported on a macvlan"), "vrrp_check_unicast_src": drop("adverts of others than unicast_peers are always refused"),
	"vrrp_skip_check_adv_addr": drop("every advert is checked"), "vrrp_notify_priority_changes": drop("status and the log have the priority in use"),
	"max_auto_priority": drop(noProcesses), "min_auto_priority_delay": drop(noProcesses), "vrrp_priority": drop(noProcesses), "checker_priority": drop(noProcesses),
	"bfd_priority": drop(noBFD), "vrrp_no_swap": drop(noProcesses), "checker_no_swap": drop(noProcesses), "bfd_no_swap": drop(noBFD),
	"vrrp_cpu_affinity": lack("write CPUAffinity= into a drop-in of the unit"), "checker_cpu_affinity": lack("write CPUAffinity= into a drop-in of the unit"), "bfd_cpu_affinity": drop(noBFD),
	"vrrp_rt_priority": drop(noProcesses), "checker_rt_priority": drop(noProcesses), "bfd_rt_priority": drop(noBFD),
	"vrrp_rlimit_rttime": drop(noProcesses), "checker_rlimit_rttime": drop(noProcesses), "bfd_rlimit_rttime": drop(noBFD),
	"snmp_socket": lack(noSNMP), "enable_snmp_keepalived": lack(noSNMP), "enable_snmp_vrrp": lack(noSNMP), "enable_snmp_checker": lack(noSNMP), "enable_snmp_rfc": lack(noSNMP),
	"enable_snmp_rfcv2": lack(noSNMP), "enable_snmp_rfcv3": lack(noSNMP), "enable_traps": lack(noSNMP), "enable_dbus": lack(noDBus), "dbus_service_name": lack(noDBus),
	"enable_script_security": drop("a command that somebody else could have changed is never run"),
	"notify_fifo":            lack(noFIFO), "notify_fifo_script": lack(noFIFO), "vrrp_notify_fifo": lack(noFIFO), "vrrp_notify_fifo_script": lack(noFIFO),
	"lvs_notify_fifo": lack(noFIFO), "lvs_notify_fifo_script": lack(noFIFO), "fifo_write_vrrp_states_on_reload": lack(noFIFO),
	"dynamic_interfaces": drop("an interface may come and go; the instance is in FAULT meanwhile"), "vrrp_netlink_cmd_rcv_bufs": drop(noBuffers), "vrrp_netlink_cmd_rcv_bufs_force": drop(noBuffers),
	"vrrp_netlink_monitor_rcv_bufs": drop(noBuffers), "vrrp_netlink_monitor_rcv_bufs_force": drop(noBuffers), "lvs_netlink_cmd_rcv_bufs": drop(noBuffers),
	"lvs_netlink_cmd_rcv_bufs_force": drop(noBuffers), "lvs_netlink_monitor_rcv_bufs": drop(noBuffers), "lvs_netlink_monitor_rcv_bufs_force": drop(noBuffers),
	"process_monitor_rcv_bufs": drop(noBuffers), "process_monitor_rcv_bufs_force": drop(noBuffers), "vrrp_rx_bufs_policy": drop(noBuffers), "vrrp_rx_bufs_multiplier": drop(noBuffers),
	"rs_init_notifies": drop("what has changed since this box was up last is told at the start"), "no_checker_emails": lack("write kinds into notify.mail"),
	"umask": drop("files are readable by the service alone"), "log_unknown_vrids": drop("adverts for other virtual routers are no business of this one"),
	"vmac_prefix": lack("write virtual_mac: {name} into the instance"), "vmac_addr_prefix": lack("only the instance's own interface has a macvlan"),
	"random_seed": drop("nothing here is random"), "reload_check_config": drop(noReload), "include_check": drop(noInclude),
	"reload_time_file": lack("write a timer of systemd that runs xdirector reload"), "reload_repeat": lack("write a timer of systemd that runs xdirector reload"),
	"reload_file": drop(noReload), "data_use_instance": drop("xdirector status --json tells everything"),
	"smtp_alert_checker": drop("what it is the default of is converted with it"),
	"smtp_alert":         drop("what it is the default of is converted with it"), "smtp_alert_vrrp": drop("what it is the default of is converted with it"),
}

var instanceRules = map[string]rule{
	"preempt": drop("it is the default"), "native_ipv6": drop("the virtual addresses say which family it is"),
	"vrf": lack("the instance is on its interface; name that of the VRF"), "use_vmac_addr": lack("only the instance's own interface has a macvlan"),
	"vmac_xmit_base": drop("adverts are sent as the macvlan needs it"), "use_ipvlan": lack("there is no ipvlan; without it the interface's own MAC is used"),
	"dont_track_primary": lack("the instance's own interface counts always: a box that can't be heard is no MASTER"),
	"track_bfd":          lack(noBFD), "mcast_dst_ip": lack("adverts go to 224.0.0.18 and ff02::12"), "track_src_ip": lack("the source address is not watched"),
	"check_unicast_src": drop("adverts of others than unicast_peers are always refused"), "unicast_fault_no_peer": drop("unicast_peers without a peer is an error"),
	"old_unicast_checksum": lack("the checksum that keepalived had before version 1.4 is gone"),
	"garp_extra_if":        lack("garp: {refresh} refreshes all addresses, whatever interface they are on"),
	"lower_prio_no_advert": lack("a MASTER that hears a lower one always says so at once"), "higher_prio_send_advert": lack("a MASTER that hears a higher one goes without a word"),
	"promote_secondaries": drop("no address of the box goes when a virtual one does"), "virtual_rules": lack("there are no rules; write ip rule into the box's own network configuration, where it has no effect while the table is empty"),
	"skip_check_adv_addr": drop("every advert is checked"), "debug": drop("log: {level: debug} has everything"),
	"notify_deleted": lack("an instance that a reload takes away stops: notify: {stop} is run"), "notify_priority_changes": drop("status and the log have the priority in use"),
	"kernel_rx_buf_size": drop(noBuffers), "linkbeat_use_polling": drop(noLink), "lvs_sync_daemon_interface": lack("connections are not given to the other director yet"),
}

var groupRules = map[string]rule{
	"track_bfd": lack(noBFD), "global_tracking": drop("what a member tracks counts for all of them anyway"),
	"sync_group_tracking_weight": drop("what a member tracks with a weight counts for all of them anyway"),
	"notify_deleted":             lack("an instance that a reload takes away stops: notify: {stop} is run"), "notify_priority_changes": drop("status and the log have the priority in use"),
}

var trackRules = map[string]rule{
	"init_fail": lack("an instance waits for the first run of its scripts of weight 0, and a weight counts from the first run on"), "init_file": drop("a file that is missing counts as 0"),
	"param_match": lack("processes are known by their name, not by their arguments"), "quorum_max": lack("there is no most of processes"),
	"fork_delay": drop("a start is noticed within a second"), "terminate_delay": lack("an end counts within 0.2s, also if another one is started right after"),
	"delay": lack("an end counts within 0.2s, also if another one is started right after"), "full_command": lack("processes are known by their name or the path of their executable"),
}

var serverRules = map[string]rule{
	"flag-1": lack("the flags of IPVS's schedulers can't be set"), "flag-2": lack("the flags of IPVS's schedulers can't be set"), "flag-3": lack("the flags of IPVS's schedulers can't be set"),
	"sh-port": lack("sh goes by the client's address alone"), "sh-fallback": drop("a client whose real server is down gets another one always"),
	"mh-port": lack("mh goes by the client's address alone"), "mh-fallback": drop("a client whose real server is down gets another one always"),
	"ops":                lack("every flow of UDP is remembered; timeouts: {udp} says how long"),
	"persistence_engine": lack("clients are told apart by their address"), "ha_suspend": drop("checks run in every VRRP state, so that a new MASTER knows at once"),
	"alpha": lack("a new real server is up until its first result"), "omega": lack("a stop is told to notify.exec and the instances' stop, not as real servers that go down"),
	"sorry_server_inhibit": lack("the sorry server is there while the quorum is lost, and is not checked"), "warmup": drop("the starts of checks are spread by themselves"),
	"nat_mask": drop("keepalived doesn't know it any more"), "ip_family": drop("the real servers say which family it is"),
}

var realRules = map[string]rule{
	"alpha": lack("a new real server is up until its first result"), "warmup": drop("the starts of checks are spread by themselves"),
	"lthreshold": drop("with max_connections a real server gets new ones again as soon as it has fewer"), "snmp_name": lack(noSNMP),
}

var checkRules = map[string]rule{
	"connect_ip": lack("a check goes to the real server's own address"), "bindto": lack(noSource), "bind_if": lack(noSource), "bind_port": lack(noSource), "fwmark": lack(noSource),
	"alpha": lack("a new real server is up until its first result"), "warmup": drop("the starts of checks are spread by themselves"), "log_all_failures": drop("the reason of a failure is logged and counted"),
	"http_protocol": drop("HTTP 1.1 is spoken"), "fast_recovery": drop("a real server is up again after rise successes, one by default"), "enable_sni": drop("the name is always sent: host"),
	"misc_dynamic": lack("weights don't follow a check; xdirector weight sets one"), "user": lack("there are no checks by a command"), "misc_timeout": lack("there are no checks by a command"),
	"misc_path": lack("there are no checks by a command"), "helo_name": lack("there is no SMTP check"), "type": lack("there is no DNS check"), "name": lack("there is neither a check by DNS nor one by BFD"),
	"payload": lack("there is no UDP check"), "require_reply": lack("there is no UDP check"), "min_reply_length": lack("there is no UDP check"), "max_reply_length": lack("there is no UDP check"),
	"track_file": lack("there is no check by a file"), "dynamic": lack("weights don't follow a check; xdirector weight sets one"), "weight": lack("weights don't follow a check; xdirector weight sets one"),
	"host": lack("only an SMTP_CHECK has hosts"),
}

var urlRules = map[string]rule{
	"digest": lack("an answer is not hashed; body: looks for a text in it"), "regex_no_match": lack("body: can only be looked for"), "regex_options": lack("body: is a text, no expression"),
	"regex_stack": lack("body: is a text, no expression"), "regex_min_offset": lack("body: is looked for in the first 64 KiB"), "regex_max_offset": lack("body: is looked for in the first 64 KiB"),
}
