# Runs in the guest, with systemd as PID 1: what the doctor finds only there, each cured by the command that it prints. Prints
# a line for each fact that held; the first that doesn't hold ends it.
set -euo pipefail
fact() { echo "fact: $* (after $SECONDS s)"; }
trap 'echo "line $LINENO failed: $BASH_COMMAND"; cat /run/found 2>/dev/null' ERR
# COMMAND...: the doctor finds something
finds() { ! "$@" >/run/found; }
# WHAT: it was found; its cure is run
cure() { bash -ec "$(grep -A 4 -F "$1" /run/found | sed -n 's/^   Cure: //p' | head -n 1)"; }
on_lo() { ip -brief address show dev lo | grep -q "$1"; }

# The guest has no boot to wait for.
for unit in xdirector-real-server systemd-networkd; do
	mkdir -p /run/systemd/system/$unit.service.d
	printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/$unit.service.d/test.conf
done
install -D "$XDIRECTOR_BIN" /usr/bin/xdirector
ip netns add network
ip link add eth0 type veth peer name eth0 netns network
ip address add 192.0.2.11/24 dev eth0
ip link set eth0 up
ip -n network link set eth0 up
real_server=(xdirector doctor --real-server --vip 192.0.2.100 --listen 0s)

finds "${real_server[@]}"
cure '192.0.2.100 is not on lo'
"${real_server[@]}"
systemctl is-active --quiet xdirector-real-server
systemctl is-enabled --quiet xdirector-real-server
fact what the doctor says makes a real server
xdirector real-server install --vip 192.0.2.100 | grep -q 'ran already'
xdirector real-server install --vip 2001:db8::100,192.0.2.100
on_lo 192.0.2.100/32 && on_lo 2001:db8::100/128
since=$(systemctl show -P ActiveEnterTimestampMonotonic xdirector-real-server)
xdirector real-server install --vip 2001:db8::100,192.0.2.101
on_lo 192.0.2.101/32 && on_lo 2001:db8::100/128 && ! on_lo 192.0.2.100
[[ $since == "$(systemctl show -P ActiveEnterTimestampMonotonic xdirector-real-server)" ]]
fact another list is taken over without a restart
[[ $(sysctl -n net.ipv4.conf.all.arp_announce) == 2 ]]
xdirector real-server remove
! on_lo 192.0.2 && ! on_lo 2001 && [[ $(sysctl -n net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce) == $'0\n0' ]]
[[ ! -e /etc/systemd/system/xdirector-real-server.service ]]
! systemctl is-active --quiet xdirector-real-server
xdirector real-server remove | grep -q 'nothing to remove'
fact and it is undone

# systemd-networkd, which takes a box with a read-only /sys for one without udev.
mount -o remount,ro /sys
ip link add net0 type veth peer name net0 netns network
ip -n network link set net0 up
mkdir -p /etc/xdirector /etc/systemd/network
cat >/etc/xdirector/config.yaml <<-'Y'
	vrrp:
	  instances:
	    - {name: VI_1, interface: net0, virtual_router_id: 51, virtual_addresses: [198.51.100.100]}
Y
cat >/etc/systemd/network/10-net0.network <<-'N'
	[Match]
	Name=net0
	[Network]
	Address=198.51.100.11/24
	LinkLocalAddressing=no
	IPv6AcceptRA=no
N
systemctl start systemd-networkd
for ((n = 0; n < 300; n++)); do
	! grep -qs '^ADMIN_STATE=configured' /run/systemd/netif/links/* || break
	sleep 0.1
done
director=(xdirector doctor --listen 0s)
finds "${director[@]}"
cure 'systemd-networkd manages net0'
"${director[@]}"
grep -q KeepConfiguration=static /etc/systemd/network/10-net0.network.d/xdirector.conf
fact systemd-networkd keeps what it did not add
