# Runs in the guest, with systemd as PID 1: a package and its units as they are delivered, a client and a real server. Prints a
# line for each fact that held; the first that doesn't hold ends it. Some take longer, and are looked at with XDIRECTOR_UNIT_ALL=1 alone.
set -euo pipefail
fact() { echo "fact: $*"; }
trap 'echo "line $LINENO failed: $BASH_COMMAND"; journalctl --no-pager -n 40 -u xdirector || true' ERR
wait_for() { # SECONDS COMMAND...
	local until=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS >= until)); then
			echo "gave up waiting for: $*"
			return 1
		fi
		sleep 0.5
	done
}

# One switch, a client, a real server; the director is the guest itself.
for n in switch client server; do ip netns add $n; ip -n $n link set lo up; done
ip -n switch link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
ip -n switch link set br0 up
ip link add eth0 netns client type veth peer name client netns switch
ip link add eth0 netns server type veth peer name server netns switch
ip link add eth0 type veth peer name director netns switch # last: no new link may be named like one that is here
for n in director client server; do ip -n switch link set $n master br0 up; done
ip addr add 10.77.0.1/24 dev eth0
ip link set eth0 up
ip -n client addr add 10.77.0.2/24 dev eth0
ip -n client link set eth0 up
ip netns exec server sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
ip -n server addr add 10.77.0.3/24 dev eth0
ip -n server addr add 10.77.0.100/32 dev lo
ip -n server link set eth0 up
mkdir -p /run/web
cat >/run/web/nginx.conf <<-'C'
	pid /run/web/pid;
	error_log stderr;
	events {}
	http { access_log off; server { listen 80; location / { return 200 "served\n"; } } }
C
ip netns exec server nginx -c /run/web/nginx.conf -p /run/web

# A database of packages that knows systemd alone: the host's is long to read for an emulated processor, and so are triggers.
mkdir -p /run/web/dpkg/info /run/web/dpkg/updates /run/web/dpkg/triggers
dpkg-query -s systemd >/run/web/dpkg/status
packages() { dpkg --admindir=/run/web/dpkg --no-triggers "$@"; }
type_lines() { # NUMBER FILE: what the page has for a tar.gz, the NUMBERth of its blocks
	sed -n '/^## Other distributions/,/^## /p' "$XDIRECTOR_PAGE" >/run/web/page
	awk -v n="$1" '/^    / { if (!inside) blocks++; inside = 1; if (blocks == n) print; next } { inside = 0 }' /run/web/page |
		sed -E "s|xdirector-[0-9.]+-linux-amd64.tar.gz|$2|" >/run/web/lines
	[[ $(grep -c . /run/web/lines) -gt 3 ]]
	bash -exuo pipefail /run/web/lines
}
install_package() { # FILE; what it prints is in /run/web/package
	local block=2 # another version
	[[ $1 != "$XDIRECTOR_PACKAGE" ]] || block=1
	case $1 in
	*.deb) packages -i "$1" ;;
	*.rpm) rpm -U --nodeps --replacepkgs "$1" ;;
	*.tar.gz) type_lines $block "$1" ;;
	esac >/run/web/package 2>&1 || { cat /run/web/package; false; }
	grep '^xdirector:' /run/web/package || [[ $1 == *.tar.gz ]]
}
says() { grep -q "^xdirector: .*$1" /run/web/package || [[ $XDIRECTOR_PACKAGE == *.tar.gz ]]; } # which has no scripts
install_package "$XDIRECTOR_PACKAGE"
says 'not started: write /etc/xdirector/config.yaml'
says 'systemctl enable --now xdirector'
[[ $(systemctl show -P ActiveState xdirector) == inactive && $(systemctl show -P UnitFileState xdirector) == disabled ]]
[[ $(stat -c %U:%G:%a /etc/xdirector) == root:xdirector:2755 && -z $(ls -A /etc/xdirector) ]]
fact a package starts nothing and says what to do
cat >/etc/xdirector/config.yaml <<-'Y'
	vrrp:
	  instances:
	    - {name: VI_1, interface: eth0, virtual_router_id: 51, version: 3, advert_interval: 1s, virtual_addresses: [10.77.0.100]}
	services:
	  - name: web
	    address: 10.77.0.100
	    port: 80
	    scheduler: rr
	    check: {type: http}
	    real_servers: [{address: 10.77.0.3}]
	dataplane: {mode: xdp-generic}
Y
chmod 640 /etc/xdirector/config.yaml
sed 's/sleep 60/sleep 2/' /usr/lib/systemd/system/xdirector-cleanup.service >/run/systemd/system/xdirector-cleanup.service
# The guest has no boot to wait for; fewer starts keep the test short. All else is as delivered.
for unit in xdirector.service xdirector-cleanup.service run-xdirector-bpf.mount; do
	mkdir -p /run/systemd/system/$unit.d
	printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/$unit.d/test.conf
done
printf 'StartLimitBurst=8\n' >>/run/systemd/system/xdirector.service.d/test.conf
systemctl daemon-reload

request() { [[ $(ip netns exec client curl -sS --max-time 2 http://10.77.0.100/) == served ]]; }
agent_answers() { xdirector status >/dev/null; }
is_master() { [[ $(systemctl show -P StatusText xdirector) == "VI_1 MASTER" ]]; }
main_pid() { systemctl show -P MainPID xdirector; }
part() { pgrep -P "$(main_pid)" -f "^xdirector $1"; }
logged() { journalctl --no-pager -u xdirector | grep "$@" >/dev/null; } # all of it is read, or journalctl fails
# Requests one after another, until the file is gone; the number of those that failed is in /run/web/failed. And one connection
# that lasts all the time, in which one question after the other is answered.
begin_load() {
	touch /run/web/load
	ip netns exec client bash -c '
		exec 3<>/dev/tcp/10.77.0.100/80
		for ((answers = 0; ; answers++)); do
			printf "GET / HTTP/1.1\r\nHost: web\r\n\r\n" >&3
			while read -r -t 10 line <&3 && [[ $line != served ]]; do :; done
			[[ $line == served ]] || exit 1
			[[ -e /run/web/load ]] || break
			sleep 0.5
		done
		echo "$answers answers in one connection"
	' &
	connection=$!
	(
		failed=0 all=0
		while [[ -e /run/web/load ]]; do
			all=$((all + 1))
			request || failed=$((failed + 1))
			sleep 0.5 # leaves an emulated processor to the director
		done
		echo "$failed of $all" >/run/web/failed
	) &
	load=$!
}
end_load() {
	rm /run/web/load
	wait $load
	wait $connection
	cat /run/web/failed
	[[ $(cat /run/web/failed) == "0 of "* ]]
}
adverts_go_on() { # COMMAND: while it runs, the instance leaves MASTER never
	! journalctl --no-pager -u xdirector --since "$1" | grep -q 'from=MASTER'
}

systemctl enable --now xdirector
fact started
wait_for 60 is_master
fact status names the state
journalctl --no-pager -o json -u xdirector | grep '"XDIRECTOR_TO":"MASTER"' | grep '"XDIRECTOR_REASON":"' | grep '"XDIRECTOR_INSTANCE":"VI_1"' >/dev/null
fact the journal has the fields of a state change
wait_for 10 request
fact a request is forwarded
for what in drain undrain; do
	out=$(xdirector $what web/10.77.0.3 2>&1)
	[[ $out == *"new flows"* && $out != *warning* ]] || { echo "$out"; false; }
done
request
fact operators can change weights
xdirector status
grep -q ' /run/xdirector/bpf .* - bpf ' /proc/1/mountinfo
[[ $(readlink "/proc/$(main_pid)/ns/mnt") != $(readlink /proc/1/ns/mnt) ]]
fact the pins are in the host\'s mount namespace, and the service is in its own
for pid in $(pgrep -d ' ' -f '^xdirector (agent|election)') "$(main_pid)"; do
	[[ $(stat -c %U "/proc/$pid") == xdirector ]]
	[[ $((0x$(sed -n 's/^CapEff:\t//p' "/proc/$pid/status") & (1 << 21 | 1 << 24 | 1 << 16))) == 0 ]] # SYS_ADMIN, SYS_RESOURCE, SYS_MODULE
done
fact all three are of the user xdirector, without the rights of root

[[ $(grep -c . <(systemctl show -P ControlGroup xdirector)) == 1 ]]
[[ $(cat "/proc/$(part agent)/oom_score_adj") -gt $(cat "/proc/$(main_pid)/oom_score_adj") ]]
[[ $(cat "/proc/$(main_pid)/oom_score_adj") -ge $(cat "/proc/$(part election)/oom_score_adj") ]]
fact the agent is the first to go when memory is short

if [[ $XDIRECTOR_UNIT_ALL == 1 ]]; then
	# The service is short of memory, and the kernel takes a process of it.
	now=$(date '+%F %T')
	election=$(part election) agent=$(part agent) main=$(main_pid)
	group=/sys/fs/cgroup$(systemctl show -P ControlGroup xdirector)
	# The kernel counts the memory of a process that it kills as free before it is, and may take another one: the agent's turn
	# is what the scores above say, so here the others are out of it.
	for pid in "$main" "$election"; do echo -1000 >"/proc/$pid/oom_score_adj"; done
	begin_load
	until grep -q '^oom_kill [1-9]' "$group/memory.events"; do
		echo 64M >"$group/memory.reclaim" 2>/dev/null || true # less than that can be had, and all of it is
		read -r used <"$group/memory.current"
		echo $((used - 1048576)) >"$group/memory.max" # returns when enough has gone
		echo max >"$group/memory.max"                 # at once, for the next agent starts already
	done
	for pid in "$main" "$election"; do echo -900 >"/proc/$pid/oom_score_adj"; done
	wait_for 60 logged 'the agent has ended.*ran out of memory'
	wait_for 60 agent_answers
	end_load
	[[ $(part agent) != "$agent" && $(part election) == "$election" && $(main_pid) == "$main" ]]
	adverts_go_on "$now"
	fact an agent killed for want of memory comes back, and nobody else notices
fi

# Upgrade under load.
now=$(date '+%F %T')
election=$(part election) main=$(main_pid)
begin_load
install_package "$XDIRECTOR_NEWER_PACKAGE"
says "upgraded to .* in process $main; nothing was restarted"
wait_for 60 agent_answers
wait_for 60 logged 'upgraded.*to=v999'
end_load
[[ $(main_pid) == "$main" && $(part election) != "$election" && $(systemctl show -P NRestarts xdirector) == 0 ]]
adverts_go_on "$now"
wait_for 60 is_master
fact an upgrade of the package under load loses no request and no connection, in the same process

if [[ $XDIRECTOR_UNIT_ALL == 1 ]]; then
	cp /etc/xdirector/config.yaml /run/web/good.yaml
	echo 'lob: {}' >>/etc/xdirector/config.yaml
	install_package "$XDIRECTOR_NEWER_PACKAGE"
	says 'the old version goes on, in process .*lob'
	[[ $(main_pid) == "$main" ]]
	is_master
	request
	cat /run/web/good.yaml >/etc/xdirector/config.yaml
	fact an upgrade that is refused is said with the reason, and the package is installed all the same
fi

before=$(main_pid)
kill -STOP "$before"
request
fact a stopped supervisor leaves forwarding alive
restarted() { local now; now=$(main_pid); [[ $now != 0 && $now != "$before" ]]; }
wait_for 60 restarted
fact the watchdog restarts it
wait_for 60 is_master
request
fact and it forwards again

if [[ $XDIRECTOR_UNIT_ALL == 1 ]]; then
	before=$(main_pid)
	kill -KILL "$before"
	wait_for 10 restarted
	wait_for 60 is_master
	request
	[[ $(ip -o addr show dev eth0 to 10.77.0.100 | wc -l) == 1 ]]
	[[ $(pgrep -fc '^xdirector (agent|election)') == 2 ]]
	fact a killed supervisor comes back, its children don\'t outlive it

	# A director that can't start: its supervisor dies, and the file is broken.
	cp /etc/xdirector/config.yaml /run/web/good.yaml
	echo 'lob: {}' >>/etc/xdirector/config.yaml
	kill -KILL "$(main_pid)"
	nothing_left() { [[ -z $(ip -o addr show dev eth0 to 10.77.0.100) && -z $(ip -d -o link show dev eth0 | grep -w prog/xdp) ]]; }
	wait_for 60 nothing_left
	[[ $(systemctl show -P Result xdirector-cleanup) == success ]]
	fact what a director that can\'t start has left is removed
	cp /run/web/good.yaml /etc/xdirector/config.yaml
	wait_for 60 is_master
	request
	fact and it is started again when the file is good
fi

systemctl reload xdirector
wait_for 60 logged 'configuration reloaded'
fact reload works

if [[ $XDIRECTOR_UNIT_ALL == 1 ]]; then
	# A check script, which runs as a user of its own inside all that the unit forbids.
	useradd --system --no-create-home --shell /usr/sbin/nologin checker
	install -m 755 /dev/stdin /etc/xdirector/check-it <<-'C'
		#!/bin/sh
		[ ! -e /run/web/hang ] || exec sleep 1000
		[ -e /run/web/bad ] || exit 0
		echo "by $(id -un):$(id -gn) $(grep -E '^(CapEff|NoNewPrivs)' /proc/self/status | tr -s '\n\t' ' ')"
		exit 1
	C
	sed -i 's|^vrrp:|&\n  scripts: [{name: it, command: /etc/xdirector/check-it, user: checker, interval: 200ms, timeout: 4s, weight: -60}]|
		s|interface: eth0,|& track: {scripts: [it]},|' /etc/xdirector/config.yaml
	systemctl reload xdirector
	in_status() { xdirector status --json | tr -d ' \n' | grep -qE "$1"; }
	has_priority() { in_status "\"priority\":$1,.*\"configured_priority\":100,"; }
	wait_for 60 has_priority 100
	touch /run/web/bad
	wait_for 60 has_priority 40
	wait_for 60 logged 'by checker:checker CapEff: 0000000000000000 NoNewPrivs: 1'
	fact a script runs as its user without any right, and its failure lowers the priority
	rm /run/web/bad
	wait_for 60 has_priority 100
	touch /run/web/hang
	wait_for 60 has_priority 40
	wait_for 60 logged 'did not end within 4s and was killed'
	rm /run/web/hang
	wait_for 60 has_priority 100
	[[ -z $(pgrep -u checker sleep) ]]
	fact one that hangs is killed, and its success gives the priority back
fi

is_master
request
[[ -z $(journalctl --no-pager -u xdirector | grep 'did not permit') ]] # `! command` would end nothing

# What else the unit could forbid by mistake: settings of the network below /proc/sys, and the kernel's modules.
sed -i 's/xdp-generic/ipvs/; s/advert_interval: 1s/advert_interval: 100ms, virtual_mac: true/' /etc/xdirector/config.yaml
systemctl restart xdirector
wait_for 60 is_master
wait_for 10 request
xdirector status | grep -q '^Plane ipvs'
[[ $(cat /proc/sys/net/ipv4/conf/vrrp4-51/arp_ignore) == 1 ]]
fact IPVS and a virtual MAC work with the unit\'s rights

now=$(date '+%F %T')
case $XDIRECTOR_PACKAGE in
*.deb)
	packages -L xdirector >/run/web/files
	packages --purge xdirector
	;;
*.rpm)
	rpm -ql xdirector >/run/web/files
	rpm -e xdirector
	;;&
*.tar.gz)
	tar -tzf "$XDIRECTOR_PACKAGE" | sed 's|^\.||' >/run/web/files
	type_lines 3 "$XDIRECTOR_NEWER_PACKAGE"
	;;&
*.rpm | *.tar.gz)
	[[ -e /etc/xdirector/config.yaml ]] # it is not the package's
	rm -r /etc/xdirector
	;;
esac
journalctl --no-pager -u xdirector --since "$now" | grep -w stopped # by a handover; not killed
[[ -z $(ip -o addr show to 10.77.0.100) && ! -e /sys/class/net/vrrp4-51 ]]
[[ -z $(ip -d -o link show dev eth0 | grep -w prog/xdp) && -z $(ipvsadm -Sn) ]]
[[ -z $(pgrep -x xdirector) && -z $(grep /run/xdirector /proc/1/mountinfo) ]]
[[ -z $(find /etc/xdirector /run/xdirector /etc/systemd/system -name '*xdirector*' 2>/dev/null) ]]
grep xdirector /run/web/files | while read -r file; do [[ ! -e $file ]]; done
[[ $(grep -c xdirector /run/web/files) -gt 40 ]]
fact a package that is removed takes all with it, from the kernel too
