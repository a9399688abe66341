# Runs in the guest, with systemd as PID 1: the unit as it is delivered, a client and a real server. Prints a line for
# each fact that held; the first that doesn't hold ends it.
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
		sleep 0.2
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

install -D "$XDIRECTOR_BIN" /usr/bin/xdirector
mkdir -p /etc/xdirector
cat >/etc/xdirector/config.yaml <<-'Y'
	vrrp:
	  instances:
	    - {name: VI_1, interface: eth0, virtual_router_id: 51, version: 3, advert_interval: 200ms, virtual_addresses: [10.77.0.100]}
	services:
	  - name: web
	    address: 10.77.0.100
	    port: 80
	    scheduler: rr
	    check: {type: http}
	    real_servers: [{address: 10.77.0.3}]
	dataplane: {mode: xdp-generic}
Y
cp "$XDIRECTOR_UNIT" /run/systemd/system/xdirector.service
# The guest has no boot to wait for; a shorter watchdog keeps the test short. All else is as delivered.
mkdir -p /run/systemd/system/xdirector.service.d
printf '[Unit]\nDefaultDependencies=no\n[Service]\nWatchdogSec=4\n' >/run/systemd/system/xdirector.service.d/test.conf
systemctl daemon-reload

request() { [[ $(ip netns exec client curl -sS --max-time 2 http://10.77.0.100/) == served ]]; }
is_master() { [[ $(systemctl show -P StatusText xdirector) == "VI_1 MASTER" ]]; }
main_pid() { systemctl show -P MainPID xdirector; }

systemctl start xdirector
fact started
wait_for 20 is_master
fact status names the state
wait_for 10 request
fact a request is forwarded
xdirector status
grep -q ' /run/xdirector/bpf .* - bpf ' /proc/1/mountinfo
fact the pins are in the host\'s mount namespace

before=$(main_pid)
kill -STOP "$before"
request
fact a stopped agent leaves forwarding alive
restarted() { local now; now=$(main_pid); [[ $now != 0 && $now != "$before" ]]; }
wait_for 30 restarted
fact the watchdog restarts it
wait_for 20 is_master
request
fact and it forwards again

before=$(main_pid)
kill -KILL "$before"
wait_for 10 restarted
wait_for 20 is_master
request
[[ $(ip -o addr show dev eth0 to 10.77.0.100 | wc -l) == 1 ]]
fact a killed agent comes back

systemctl reload xdirector
wait_for 10 grep -q "configuration reloaded" <(journalctl --no-pager -u xdirector)
fact reload works

systemctl stop xdirector
[[ -z $(ip -o addr show dev eth0 to 10.77.0.100) ]]
[[ -z $(ip -d -o link show dev eth0 | grep -w prog/xdp) ]]
[[ $(systemctl show -P Result xdirector) == success ]]
fact a clean stop leaves nothing
