package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// FRR is one virtual router of an FRR peer.
type FRR struct {
	Version   int // 2 or 3
	VRID      uint8
	Priority  uint8
	Interval  time.Duration
	NoPreempt bool
	Addresses []string // bare, of one family or both
}

// FRRouter is FRR's zebra and vrrpd, running on a node.
type FRRouter struct {
	zebra, vrrpd *Process
}

const (
	frrBinaries = "/usr/lib/frr"
	frrRun      = "/run/frr" // its files of a run are in a folder below, by the name of the run
)

// StartFRR runs Debian's vrrpd and the zebra that it needs on the node. The virtual routers live on macvlans with
// their virtual MAC, which stay when it ends.
func (n *Node) StartFRR(routers ...FRR) (*FRRouter, error) {
	r, err := n.startFRR(routers)
	if err != nil {
		return nil, fmt.Errorf("start FRR on %s: %w", n.Name, err)
	}
	return r, nil
}

func (n *Node) startFRR(routers []FRR) (*FRRouter, error) {
	// Its documentation asks for this: otherwise eth0 answers for the addresses of the macvlans, as BACKUP too.
	if err := n.Sysctl("net/ipv4/conf/eth0/arp_ignore", "1"); err != nil {
		return nil, err
	}
	name := n.lab.name + "-" + n.Name
	run := filepath.Join(frrRun, name)
	n.lab.onClose(func() { _ = os.RemoveAll(run) })
	// The socket of an earlier zebra must not be taken for that of the new one: vrrpd tries again after ten seconds only.
	if err := os.RemoveAll(run); err != nil {
		return nil, err
	}
	if err := n.Run("install", "-d", "-o", "frr", "-g", "frr", frrRun, run); err != nil {
		return nil, err
	}
	var conf strings.Builder
	conf.WriteString("interface eth0\n")
	for _, f := range routers {
		if err := n.frrLinks(f); err != nil {
			return nil, err
		}
		f.text(&conf)
	}
	start := func(daemon, conf string) (*Process, error) {
		file := n.path(daemon + ".conf")
		if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
			return nil, err
		}
		return n.lab.start(n.t, n.Name+"/"+daemon, n.Dir, nil, filepath.Join(frrBinaries, daemon), "--pathspace", name,
			"--config_file", file, "--pid_file", filepath.Join(run, daemon+".pid"), "--vty_addr", "127.0.0.1", "--log", "stdout")
	}
	var r FRRouter
	var err error
	if r.zebra, err = start("zebra", ""); err != nil {
		return nil, err
	}
	err = Wait(context.Background(), 10*time.Second, func() error { _, err := os.Stat(filepath.Join(run, "zserv.api")); return err })
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, r.zebra.Log())
	}
	r.vrrpd, err = start("vrrpd", conf.String())
	return &r, err
}

func (f FRR) text(b *strings.Builder) {
	fmt.Fprintf(b, " vrrp %d version %d\n vrrp %d priority %d\n vrrp %d advertisement-interval %d\n",
		f.VRID, f.Version, f.VRID, f.Priority, f.VRID, f.Interval.Milliseconds())
	if f.NoPreempt {
		fmt.Fprintf(b, " no vrrp %d preempt\n", f.VRID)
	}
	for _, a := range f.Addresses {
		family := "ip"
		if strings.Contains(a, ":") {
			family = "ipv6"
		}
		fmt.Fprintf(b, " vrrp %d %s %s\n", f.VRID, family, a)
	}
}

// frrLinks makes the macvlans that vrrpd looks for by their MAC, unless they are there.
func (n *Node) frrLinks(f FRR) error {
	byFamily := map[string][]string{}
	for _, a := range f.Addresses {
		family, size := "4", "/32"
		if strings.Contains(a, ":") {
			family, size = "6", "/64"
		}
		byFamily[family] = append(byFamily[family], a+size)
	}
	for family, prefixes := range byFamily {
		link := fmt.Sprintf("vrrp%s-%d", family, f.VRID)
		if _, err := n.links.LinkByName(link); err == nil {
			continue
		}
		mac := fmt.Sprintf("00:00:5e:00:0%d:%02x", map[string]int{"4": 1, "6": 2}[family], f.VRID)
		err := errors.Join(
			n.Run("ip", "link", "add", link, "link", "eth0", "address", mac, "type", "macvlan", "mode", "bridge"),
			n.Run("ip", "link", "set", link, "addrgenmode", "random"), // the same virtual MAC would give all the same link-local address
		)
		for _, p := range prefixes {
			err = errors.Join(err, n.AddAddress(link, p))
		}
		if err = errors.Join(err, n.setUp(link)); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends FRR as an operator does: vrrpd sends priority 0 where it is MASTER.
func (r *FRRouter) Stop(limit time.Duration) error {
	return errors.Join(r.vrrpd.Terminate(limit), r.zebra.Terminate(limit))
}

// Kill ends FRR by SIGKILL; its macvlans stay up with their addresses.
func (r *FRRouter) Kill() {
	r.vrrpd.Kill()
	r.zebra.Kill()
}

// Process is vrrpd. Its log has every change of state, as "[VRID 51] [IPv4] Backup -> Master".
func (r *FRRouter) Process() *Process { return r.vrrpd }
