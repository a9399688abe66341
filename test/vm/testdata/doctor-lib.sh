# Runs in the guest, with systemd as PID 1, before a script about the doctor. Prints a line for each fact that held; the first
# that doesn't hold ends it.
set -euo pipefail
fact() { echo "fact: $* (after $SECONDS s)"; }
trap 'echo "line $LINENO failed: $BASH_COMMAND"; cat /run/found 2>/dev/null' ERR
# COMMAND...: the doctor finds something
finds() { ! "$@" >/run/found; }
# WHAT: it was found; its cure is run
cure() {
	local command
	command=$(grep -A 4 -F "$1" /run/found | sed -n 's/^   Cure: //p' | head -n 1)
	[[ -n $command ]]
	bash -ec "$command"
}
# WHAT: the director's examination finds that alone; its cure is run, and it is gone
cured() {
	finds "${director[@]}"
	grep -qx '1 finding: run each cure and look again.' /run/found
	cure "$1"
	"${director[@]}" >/run/found
}
on_lo() { ip -brief address show dev lo | grep -q "$1"; }

# The guest has no boot to wait for: no unit does, nor what systemd-run makes.
for type in service mount socket; do
	mkdir -p /run/systemd/system/$type.d
	printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/$type.d/test.conf
done
systemctl daemon-reload
install -D "$XDIRECTOR_BIN" /usr/bin/xdirector
ip netns add network
ip link add eth0 type veth peer name eth0 netns network
ip address add 192.0.2.11/24 dev eth0
ip link set eth0 up
ip -n network link set eth0 up
