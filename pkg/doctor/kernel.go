package doctor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// The oldest kernel that the XDP program is tested on.
const oldestMajor, oldestMinor = 6, 1

func kernel(b *box) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	b.fact("Linux %s", release)
	if older(release) && b.plane() != config.ModeIPVS {
		b.found("the kernel is "+release, fmt.Sprintf("XDP needs Linux %d.%d or later; without it services are on IPVS", oldestMajor, oldestMinor), installKernel())
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); errors.Is(err, os.ErrNotExist) && b.plane() != config.ModeIPVS {
		b.found("the kernel tells no types of its own (BTF): /sys/kernel/btf/vmlinux is missing",
			"frames that are lost behind the XDP program are not counted", installKernel())
	}
	return nil
}

// older says whether a release is older than what XDP needs; what can't be read isn't.
func older(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major < oldestMajor || major == oldestMajor && minor < oldestMinor
}

// installKernel is the command of this distribution; its kernels have what is asked for.
func installKernel() string {
	text, _ := os.ReadFile("/etc/os-release") // missing: as on Debian
	switch {
	case strings.Contains(string(text), "\nID=ubuntu"):
		return "apt-get install linux-generic && reboot"
	case strings.Contains(string(text), "rhel") || strings.Contains(string(text), "fedora"):
		return "dnf upgrade kernel && reboot"
	}
	return "apt-get install linux-image-" + runtime.GOARCH + " && reboot"
}

// tools: what the other probes ask.
func tools(b *box) error {
	if _, err := tool("ip"); err == nil {
		return nil
	}
	text, err := os.ReadFile("/etc/os-release")
	where, command := "", "apt-get install iproute2"
	switch {
	case err != nil: // an image of nothing but a director
		where, command = "the host of this container", again(b)
	case strings.Contains(string(text), "rhel") || strings.Contains(string(text), "fedora"):
		command = "dnf install iproute"
	}
	b.foundOn(where, "the command ip (iproute2) is missing", "most of this box can't be looked at without it", command)
	return nil
}

// needed are the capabilities without which something doesn't work, with what. They are those of the unit.
var needed = [...]struct {
	bit  uint
	name string
	what string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "addresses, IPVS and XDP programs can't be set"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", "no adverts and no gratuitous ARP can be sent"},
	{unix.CAP_BPF, "CAP_BPF", "no XDP program can be loaded, and services are on IPVS"},
	{unix.CAP_PERFMON, "CAP_PERFMON", "no XDP program can be loaded, and services are on IPVS"},
	{unix.CAP_SYS_NICE, "CAP_SYS_NICE", "the election is not real-time: a busy box loses its place as MASTER"},
}

// rights are those of the calling process, which a director that is started the same way has too.
func rights(b *box) error {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("read own rights: %w", err)
	}
	effective, ok := uint64(0), false
	for line := range strings.Lines(string(text)) {
		if value, is := strings.CutPrefix(line, "CapEff:"); is {
			effective, err = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			ok = err == nil
		}
	}
	if !ok {
		return errors.New("read own rights: /proc/self/status has no CapEff")
	}
	has := func(bit uint) bool { return effective>>bit&1 == 1 }
	if os.Geteuid() != 0 && effective == 0 {
		b.found("this is not root", "a director needs root, or the rights that its unit gives it, and much of this examination does", asRoot(again(b)))
		return nil
	}
	var missing, consequences []string
	lacks := func(name, consequence string) {
		missing = append(missing, name)
		if !slices.Contains(consequences, consequence) {
			consequences = append(consequences, consequence)
		}
	}
	for _, n := range needed {
		if !has(n.bit) && !(has(unix.CAP_SYS_ADMIN) && (n.bit == unix.CAP_BPF || n.bit == unix.CAP_PERFMON)) {
			lacks(n.name, n.what)
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("ask for the limit of locked memory: %w", err)
	}
	if limit.Cur != unix.RLIM_INFINITY && !has(unix.CAP_IPC_LOCK) {
		lacks("CAP_IPC_LOCK", fmt.Sprintf("no more than %d KiB of the election's memory can be locked: an advert may wait for a disk", limit.Cur>>10))
	}
	if len(missing) > 0 {
		where, command := start(b)
		b.foundOn(where, "a process started like this one lacks "+strings.Join(missing, ", "), strings.Join(consequences, "; "), command)
	}
	return nil
}

// start is the command that runs a director, or a test of one, with all rights: its unit does, or a container that is given them.
func start(b *box) (where, command string) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return "", "systemd-run --wait --pipe " + again(b)
	}
	return "the host of this container", "podman run -d --name xdirector --network host --read-only --cap-drop all --cap-add NET_ADMIN,NET_RAW,BPF,PERFMON,SYS_NICE " +
		"--security-opt seccomp=unconfined --security-opt unmask=/proc/sys --ulimit memlock=-1 --ulimit rtprio=40 --ulimit nofile=65536 --stop-timeout 90 -v /etc/xdirector:/etc/xdirector:ro -v /run/xdirector:/run/xdirector:rslave xdirector"
}

// asRoot is the command as somebody who isn't root gives it.
func asRoot(command string) string {
	if _, err := tool("sudo"); err == nil {
		return "sudo " + command
	}
	return "su -c " + quote(command)
}

// again is this examination once more.
func again(b *box) string {
	if b.Config == nil {
		return "xdirector doctor"
	}
	return "xdirector doctor --config " + quote(b.File)
}

// bpffs: programs are pinned there, so that they outlive the agent.
func bpffs(b *box) error {
	if len(b.onXDP()) == 0 {
		return nil
	}
	if known, err := b.pinnedByService(); known || err != nil {
		return err
	}
	command, err := xdp.MountCommand(b.Config.Dataplane.PinPath)
	if err != nil {
		return err
	}
	if command != "" {
		b.found(b.Config.Dataplane.PinPath+" is not on a bpffs, and this is not the host's mount namespace",
			"XDP programs can't be pinned, so the XDP plane is refused: one mounted by the director would vanish with its process. "+
				"For a container the command is the host's, and the container is given the folder: -v /run/xdirector:/run/xdirector:rslave", command)
	}
	return nil
}
