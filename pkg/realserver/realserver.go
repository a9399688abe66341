// Package realserver makes a box a real server for direct return: a systemd unit puts the virtual addresses on lo and
// keeps the box quiet about them on its networks, now and after each boot.
package realserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Unit is the name of the unit.
const Unit = "xdirector-real-server.service"

// Folder is where systemd looks for units of this box's administrator.
const Folder = "/etc/systemd/system"

// quiet are the settings of a real server for IPv4: answer ARP only for addresses of the interface that was asked, and
// never ask with the virtual address as the sender. For IPv6 nothing answers for an address on lo.
func quiet() [][2]string {
	return [][2]string{{"net.ipv4.conf.all.arp_ignore", "1"}, {"net.ipv4.conf.all.arp_announce", "2"}}
}

// Before are the settings as they were: what Remove gives back.
type Before map[string]string

// Current reads the settings of this box.
func Current() Before {
	b := Before{}
	for _, s := range quiet() {
		value, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(s[0], ".", "/"))
		if err == nil {
			b[s[0]] = strings.TrimSpace(string(value))
		}
	}
	return b
}

// Text is the unit for some virtual addresses; ip and sysctl are the paths of these commands. At its start the settings
// come first, at its stop the addresses go first: the box is never an owner of the address that answers.
func Text(vips []netip.Addr, before Before, ip, sysctl string) string {
	var t strings.Builder
	var names []string
	for _, v := range vips {
		names = append(names, v.String())
	}
	fmt.Fprintf(&t, `# Written by: xdirector real-server install --vip %[1]s
# Taken out by: xdirector real-server remove
[Unit]
Description=Virtual addresses of a real server behind xdirector: %[2]s
Documentation=https://github.com/xdirector/xdirector
After=network-pre.target
Before=network.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
`, strings.Join(names, ","), strings.Join(names, ", "))
	v4 := slices.ContainsFunc(vips, netip.Addr.Is4)
	for _, when := range []string{"ExecStart", "ExecReload"} {
		if v4 {
			for _, s := range quiet() {
				fmt.Fprintf(&t, "%s=%s -w %s=%s\n", when, sysctl, s[0], s[1])
			}
		}
		fmt.Fprintf(&t, "%s=%s link set dev lo up\n", when, ip)
		for _, v := range vips {
			fmt.Fprintf(&t, "%s=%s address replace %s dev lo%s\n", when, ip, netip.PrefixFrom(v, v.BitLen()), map[bool]string{true: " nodad"}[v.Is6()])
		}
	}
	for _, v := range vips {
		fmt.Fprintf(&t, "ExecStop=-%s address delete %s dev lo\n", ip, netip.PrefixFrom(v, v.BitLen()))
	}
	if v4 {
		for _, s := range quiet() {
			if old, known := before[s[0]]; known {
				fmt.Fprintf(&t, "ExecStop=%s -w %s=%s\n", sysctl, s[0], old)
			}
		}
	}
	t.WriteString(`
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateIPC=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_NETLINK AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
MemoryDenyWriteExecute=yes
LockPersonality=yes
IPAddressDeny=any
UMask=0077
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`)
	return t.String()
}

// beforeOf reads from a unit what the settings were before it.
func beforeOf(unit string) Before {
	b := Before{}
	for _, m := range regexp.MustCompile(`(?m)^ExecStop=\S+ -w (\S+)=(\S+)$`).FindAllStringSubmatch(unit, -1) {
		b[m[1]] = m[2]
	}
	return b
}

// Install writes the unit to folder, and has systemd start it now and at each boot. Addresses of an earlier unit that are
// not in the list are taken away. It says whether anything changed; if nothing did, the unit is still made to run.
func Install(folder string, vips []netip.Addr) (changed bool, err error) {
	if err := systemdRuns(); err != nil {
		return false, err
	}
	var tools [2]string
	for n, name := range []string{"ip", "sysctl"} {
		if tools[n], err = find(name); err != nil {
			return false, err
		}
	}
	vips = slices.Clone(vips)
	slices.SortFunc(vips, netip.Addr.Compare)
	vips = slices.Compact(vips)
	file := filepath.Join(folder, Unit)
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read unit: %w", err)
	}
	before := Current()
	if len(old) > 0 {
		if b := beforeOf(string(old)); len(b) > 0 {
			before = b
		}
	}
	text := Text(vips, before, tools[0], tools[1])
	if text == string(old) {
		return false, systemctl("enable", "--no-reload", "--now", Unit)
	}
	if err := write(file, text); err != nil {
		return false, err
	}
	if err := systemctl("daemon-reload"); err != nil {
		return true, err
	}
	if err := systemctl("enable", "--no-reload", Unit); err != nil {
		return true, err
	}
	// No restart: connections to an address that stays must not notice.
	if err := systemctl("reload-or-restart", Unit); err != nil {
		return true, err
	}
	for _, gone := range addressesOf(string(old)) {
		if !slices.Contains(vips, gone) {
			// It may be gone already.
			_ = exec.Command(tools[0], "address", "delete", netip.PrefixFrom(gone, gone.BitLen()).String(), "dev", "lo").Run()
		}
	}
	return true, nil
}

// addressesOf reads from a unit which addresses it holds.
func addressesOf(unit string) []netip.Addr {
	var all []netip.Addr
	for _, m := range regexp.MustCompile(`(?m)^ExecStart=\S+ address replace (\S+)/\d+ `).FindAllStringSubmatch(unit, -1) {
		if a, err := netip.ParseAddr(m[1]); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// write replaces a file in one step.
func write(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return fmt.Errorf("write unit: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write unit: %w", err)
	}
	return nil
}

// Remove undoes Install: addresses and settings are as they were. It says whether there was anything.
func Remove(folder string) (removed bool, err error) {
	file := filepath.Join(folder, Unit)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err := systemdRuns(); err != nil {
		return false, err
	}
	if err := systemctl("disable", "--no-reload", "--now", Unit); err != nil {
		return false, err
	}
	if err := os.Remove(file); err != nil {
		return false, fmt.Errorf("remove unit: %w", err)
	}
	return true, systemctl("daemon-reload")
}

// systemdRuns says what to do where it doesn't.
func systemdRuns() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return errors.New("install a unit: systemd doesn't run on this box; configs/realserver/README.md has the steps by hand, " +
			"and xdirector doctor --real-server --vip ADDRESS says which are missing")
	}
	if os.Geteuid() != 0 {
		return errors.New("install a unit: this is not root: run it with sudo")
	}
	return nil
}

func find(name string) (string, error) {
	for _, folder := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: it is not installed: apt-get install iproute2 procps", name)
}

func systemctl(arguments ...string) error {
	out, err := exec.Command("systemctl", append([]string{"--quiet"}, arguments...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(arguments, " "), err, strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; "))
	}
	return nil
}
