# What the doctor finds of systemd-networkd and of the service's own user, each cured by the command that it prints.
# systemd-networkd, which takes an interface when udev has seen it.
ip link add net0 type veth peer name net0 netns network
ip -n network link set net0 up
mkdir -p /run/udev/data /etc/xdirector /etc/systemd/network
for name in lo eth0 net0; do echo I:1 >/run/udev/data/n"$(cat /sys/class/net/$name/ifindex)"; done
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
# COMMAND: systemd-networkd has configured net0 after it
configured() {
	local index
	index=$(cat /sys/class/net/net0/ifindex)
	rm -f "/run/systemd/netif/links/$index"
	bash -c "$1"
	for ((n = 0; n < 300; n++)); do
		! grep -qs '^ADMIN_STATE=configured' "/run/systemd/netif/links/$index" || return 0
		sleep 0.1
	done
	false
}
# As a director holds one, but another one than its own: that must not be here.
hold() { ip address replace 198.51.100.99/32 dev net0 valid_lft 600 preferred_lft 600; }
held() { ip -brief address show dev net0 | grep -q 198.51.100.99/32; }
configured 'systemctl start systemd-networkd'
hold
configured 'systemctl restart systemd-networkd'
! held
hold
director=(xdirector doctor --listen 0s)
cured 'systemd-networkd manages net0'
configured 'systemctl restart systemd-networkd'
held
fact systemd-networkd keeps what it did not add
systemctl stop systemd-networkd

# The service of a user of its own.
cp "$XDIRECTOR_SOURCES"/configs/{xdirector.service,run-xdirector-bpf.mount} /etc/systemd/system/
systemctl daemon-reload
cat >/etc/xdirector/config.yaml <<-'Y'
	vrrp:
	  instances:
	    - {name: VI_1, interface: net0, version: 3, virtual_router_id: 51, virtual_addresses: [198.51.100.100]}
	services:
	  - {name: web, address: 198.51.100.100, port: 80, scheduler: rr, real_servers: [{address: 198.51.100.21}]}
	dataplane: {mode: xdp-generic}
Y
ethtool -K net0 gro off
chown root: /etc/xdirector /etc/xdirector/config.yaml
chmod 600 /etc/xdirector/config.yaml
cured 'there is no user xdirector' || {
	# The cure makes the user; then there is more to find.
	grep -q "can't read" /run/found
}
cured "can't read /etc/xdirector/config.yaml"
chmod 700 /etc/xdirector
cured "can't read /etc/xdirector/config.yaml"
fact the service can read its configuration
rm /etc/systemd/system/run-xdirector-bpf.mount
systemctl daemon-reload
cured 'run-xdirector-bpf.mount is not installed'
findmnt --noheadings --types bpf /run/xdirector/bpf
systemctl stop run-xdirector-bpf.mount
sed -i 's|mode: xdp-generic|&, pin_path: /run/elsewhere|' /etc/xdirector/config.yaml
cured '/run/elsewhere is not on a bpffs, and the service may not mount one there'
systemctl start xdirector
findmnt --noheadings --types bpf /run/xdirector/bpf
xdirector doctor --listen 0s
fact beside the service nothing is found
systemctl stop run-xdirector-bpf.mount
cured "since run-xdirector-bpf.mount doesn't run"
for ((n = 0; n < 100; n++)); do
	! xdirector status 2>/dev/null | grep -q xdp-generic || break
	sleep 0.1
done
xdirector status | grep -q xdp-generic
fact the service has its bpffs again
systemctl stop xdirector

fact that was all
