package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
)

// ipvs: the modules are there for services that the kernel forwards, and nobody else has services at our addresses.
func ipvs(b *box) error {
	services := b.onIPVS()
	if len(services) == 0 {
		return nil
	}
	names := []string{"ip_vs"}
	for _, s := range services {
		if m := "ip_vs_" + string(s.Scheduler); !slices.Contains(names, m) {
			names = append(names, m)
		}
		if s.Forwarding == lb.Tunnel && !slices.Contains(names, "ipip") {
			names = append(names, "ipip")
		}
	}
	if err := b.modules(names); err != nil {
		return err
	}
	return b.foreignServices(services)
}

// modules finds those that are neither loaded nor part of the kernel.
func (b *box) modules(names []string) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	lists := map[string]string{}
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		text, err := os.ReadFile(filepath.Join("/lib/modules", release, list))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read list of modules: %w", err)
		}
		lists[list] = string(text)
	}
	in := func(list, module string) bool {
		return strings.Contains(lists[list], "/"+module+".ko")
	}
	var idle, absent []string
	for _, m := range names {
		_, err := os.Stat("/sys/module/" + m)
		switch {
		case err == nil || in("modules.builtin", m):
		case in("modules.dep", m):
			idle = append(idle, m)
		default:
			absent = append(absent, m)
		}
	}
	if len(absent) > 0 {
		b.found("this kernel has no "+strings.Join(absent, ", "), "services that IPVS has to forward are not", installModules(release))
	}
	if len(idle) == 0 {
		return nil
	}
	// The kernel loads what is asked for, also for a director that may not, unless it was told not to.
	load := fmt.Sprintf("printf '%%s\\n' %s > /etc/modules-load.d/xdirector.conf && ", strings.Join(names, " "))
	switch {
	case setting("kernel/modules_disabled") == "1":
		b.found(strings.Join(idle, ", ")+" not loaded, and this kernel loads no more modules (kernel.modules_disabled is 1)", "services that IPVS has to forward are not", load+"reboot")
	case setting("kernel/modprobe") == "":
		b.found(strings.Join(idle, ", ")+" not loaded, and the kernel may not load modules by itself (kernel.modprobe is empty)",
			"a director that may not load them either, as the unit's, can't forward by IPVS", load+"modprobe -a "+strings.Join(names, " "))
	default:
		b.fact("%s not loaded yet: the kernel does that when a director asks for it", strings.Join(idle, ", "))
	}
	return nil
}

// installModules is the command of this distribution for the modules that minimal kernels leave out.
func installModules(release string) string {
	text, _ := os.ReadFile("/etc/os-release") // missing: as on Debian
	if strings.Contains(string(text), "\nID=ubuntu") {
		return "apt-get install linux-modules-extra-" + release
	}
	return installKernel()
}

// foreignServices finds services of IPVS at our addresses and ports that no director has made.
func (b *box) foreignServices(services []config.Service) error {
	if b.Live != nil {
		return nil // they are its own
	}
	f, err := os.Open("/proc/net/ip_vs")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list services of IPVS: %w", err)
	}
	defer f.Close()
	_, err = os.Stat(filepath.Join(b.Config.StateDir, "ipvs.json"))
	recorded := err == nil
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		at, ok := ipvsAddress(fields[1])
		for _, s := range services {
			if !ok || !strings.EqualFold(fields[0], s.Protocol.String()) || at != netip.AddrPortFrom(s.Address, s.Port) {
				continue
			}
			if recorded {
				b.found("IPVS forwards "+s.Name+" for a director that doesn't run", "a packet is answered as that one left it, whatever became of the real servers", "xdirector cleanup --config "+quote(b.File))
				continue
			}
			b.found(fmt.Sprintf("IPVS has a service %s %s that a director didn't make", s.Protocol, at), "somebody else (ipvsadm, keepalived) has it; two that change one service undo each other's work",
				fmt.Sprintf("ipvsadm --delete-service --%s-service %s", s.Protocol, at))
		}
	}
	return nil
}

// ipvsAddress reads an address and port as /proc/net/ip_vs has it: C0A80564:0050, or [2001:0db8:...]:0050.
func ipvsAddress(text string) (netip.AddrPort, bool) {
	n := strings.LastIndexByte(text, ':')
	if n < 0 {
		return netip.AddrPort{}, false
	}
	port, err := strconv.ParseUint(text[n+1:], 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	if text[0] == '[' {
		a, err := netip.ParseAddr(strings.Trim(text[:n], "[]"))
		return netip.AddrPortFrom(a, uint16(port)), err == nil
	}
	number, err := strconv.ParseUint(text[:n], 16, 32)
	a := netip.AddrFrom4([4]byte{byte(number >> 24), byte(number >> 16), byte(number >> 8), byte(number)})
	return netip.AddrPortFrom(a, uint16(port)), err == nil
}
