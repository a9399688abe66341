# What the doctor finds of its own rights and of keepalived as a service, each cured by the command that it prints.
ip link add net0 type veth peer name net0 netns network
ip -n network link set net0 up
ip address add 198.51.100.11/24 dev net0
ip link set net0 up
mkdir -p /etc/xdirector
cat >/etc/xdirector/config.yaml <<-'Y'
	vrrp:
	  instances:
	    - {name: VI_1, interface: net0, version: 3, virtual_router_id: 51, virtual_addresses: [198.51.100.100]}
Y
chmod 600 /etc/xdirector/config.yaml

# What systemd-run waits for comes by D-Bus.
printf '[Socket]\nListenStream=/run/dbus/system_bus_socket\n' >/etc/systemd/system/dbus.socket
printf '[Unit]\nRequires=dbus.socket\n[Service]\nExecStart=%s --system --address=systemd: --nofork --nopidfile --systemd-activation\n' \
	/usr/bin/dbus-daemon >/etc/systemd/system/dbus.service
systemctl daemon-reload
systemctl start dbus.service
for ((n = 0; n < 100; n++)); do
	! busctl status org.freedesktop.systemd1 >/dev/null 2>&1 || break
	sleep 0.1
done
director=(setpriv --bounding-set=-net_raw --inh-caps=-net_raw -- xdirector doctor --listen 0s)
finds "${director[@]}"
cure 'lacks CAP_NET_RAW'
director=(setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=-all -- xdirector doctor --listen 0s)
! "${director[@]}" 2>/run/found
grep 'sudo xdirector doctor --config /etc/xdirector/config.yaml' /run/found
chmod 644 /etc/xdirector/config.yaml
finds "${director[@]}"
cure 'this is not root'
fact with all rights nothing is found

# Somebody else's director, as a service.
cat >/etc/keepalived/keepalived.conf <<-'K'
	vrrp_instance X {
		interface net0
		virtual_router_id 9
		virtual_ipaddress { 198.51.100.100/32 dev net0 }
	}
K
director=(xdirector doctor --listen 0s)
systemctl start keepalived
for ((n = 0; n < 100; n++)); do
	! ip -brief address show dev net0 | grep -q 198.51.100.100 || break
	sleep 0.1
done
finds "${director[@]}"
cure 'keepalived runs here too'
! systemctl is-active --quiet keepalived
"${director[@]}"
fact keepalived is no rival
fact that was all
