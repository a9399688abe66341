// Package doctor looks at a box and says what of it keeps a director, or a real server behind one, from doing its job:
// what is wrong, why that matters, and the very command that cures it. It changes nothing. Each probe is a function of
// its own in a file of its own subject; to add one is to write it and to name it in a list here.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/status"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Probe string `json:"probe"` // which one found it
	What  string `json:"what"`
	Why   string `json:"why"` // what goes wrong because of it
	// Command cures it: one line for a shell of root. It is complete: nothing in it is left to be filled in, but for
	// words in capitals that Why explains.
	Command string `json:"command"`
	Where   string `json:"where,omitempty"` // the other box that Command is for; empty: this one
}

// Note is what a probe saw and found good, or why it could not look.
type Note struct {
	Probe  string `json:"probe"`
	Text   string `json:"text"`
	Wanted bool   `json:"wanted,omitempty"` // it was asked for that this is not looked at
}

// Report is the result of an examination.
type Report struct {
	Fit      bool      `json:"fit"` // nothing was found
	Findings []Finding `json:"findings"`
	Facts    []Note    `json:"facts"`   // what is worth knowing and needs no cure
	Skipped  []Note    `json:"skipped"` // what could not be looked at, with the reason
}

// Options says what is examined.
type Options struct {
	Config *config.Config // nil: the box alone, or a real server
	File   string         // where Config was read, for commands that change it
	Live   *status.Status // what a running director says of itself; nil: none runs
	Listen time.Duration  // how long the network is listened to; 0: not at all

	RealServer bool         // the box is, or shall be, a real server, not a director
	VIPs       []netip.Addr // virtual addresses of a real server
	Ports      []uint16     // that its services have there; none: packet rules are read for all of them together
	Gateway    netip.Addr   // the router that a real server's answers should take; invalid: not known
}

// errNotAsked says that a probe was left out because its user said so.
var errNotAsked = errors.New("not asked for: --listen 0s")

// probe is one look at the box. An error says why it could not look.
type probe struct {
	name string
	look func(*box) error
}

// directorProbes are in the order in which they are told: what the others depend on comes first.
func directorProbes() []probe {
	return []probe{
		{"tools", tools}, {"kernel", kernel}, {"rights", rights}, {"service", service}, {"bpffs", bpffs},
		{"interfaces", interfaces}, {"bonds", bonds}, {"mtu", sameMTU},
		{"xdp", xdpMode}, {"offloads", offloads}, {"queues", queues},
		{"sysctls", directorSysctls}, {"ipvs", ipvs},
		{"firewall", firewall}, {"bypassed rules", bypassed},
		{"network managers", managers}, {"other directors", rivals}, {"virtual addresses", held}, {"network", listen},
	}
}

func realServerProbes() []probe {
	return []probe{
		{"tools", tools}, {"virtual addresses", carried}, {"sysctls", realServerSysctls}, {"mtu", fullMTU}, {"firewall", realServerFirewall},
		{"network", listenAsRealServer},
	}
}

// Examine runs all probes in the network namespace of the calling process, one after another.
func Examine(ctx context.Context, o Options) Report {
	probes := directorProbes()
	if o.RealServer {
		probes = realServerProbes()
	}
	b := &box{ctx: ctx, Options: o, report: Report{Findings: []Finding{}, Facts: []Note{}, Skipped: []Note{}}}
	for _, p := range probes {
		b.probe = p.name
		if err := p.look(b); err != nil {
			b.report.Skipped = append(b.report.Skipped, Note{p.name, err.Error(), errors.Is(err, errNotAsked)})
		}
	}
	b.report.Fit = len(b.report.Findings) == 0
	return b.report
}

// box is what probes look at, and where they leave what they find.
type box struct {
	Options
	ctx    context.Context
	probe  string
	report Report
	known  []link // as read once: nothing changes them meanwhile
}

// found adds a finding; what has the same cure is one.
func (b *box) found(what, why, command string) { b.foundOn("", what, why, command) }

// foundOn is found for a cure that is due on another box.
func (b *box) foundOn(where, what, why, command string) {
	same := func(f Finding) bool { return f.Command == command && f.Where == where }
	if !slices.ContainsFunc(b.report.Findings, same) {
		b.report.Findings = append(b.report.Findings, Finding{Probe: b.probe, What: what, Why: why, Command: command, Where: where})
	}
}

func (b *box) fact(format string, args ...any) {
	b.report.Facts = append(b.report.Facts, Note{Probe: b.probe, Text: fmt.Sprintf(format, args...)})
}

// instances are those of the configuration, if there is one.
func (b *box) instances() []config.Instance {
	if b.Config == nil {
		return nil
	}
	return b.Config.Instances
}

func (b *box) services() []config.Service {
	if b.Config == nil {
		return nil
	}
	return b.Config.Services
}

// onIPVS lists the services that the kernel's IPVS forwards, or would.
func (b *box) onIPVS() []config.Service {
	all := b.plane() == config.ModeIPVS
	return slices.DeleteFunc(slices.Clone(b.services()), func(s config.Service) bool { return !all && s.OnlyIPVS() == "" })
}

// onXDP lists the other ones.
func (b *box) onXDP() []config.Service {
	all := b.plane() == config.ModeIPVS
	return slices.DeleteFunc(slices.Clone(b.services()), func(s config.Service) bool { return all || s.OnlyIPVS() != "" })
}

// plane is what forwards: what a running director says, else what the configuration wishes; auto if that is open.
func (b *box) plane() string {
	switch {
	case b.Live != nil && b.Live.Plane.Name != "":
		return b.Live.Plane.Name
	case b.Config == nil:
		return ""
	}
	return b.Config.Dataplane.Mode
}

// virtualAddresses lists all that instances hold.
func (b *box) virtualAddresses() []netip.Addr {
	var all []netip.Addr
	for _, i := range b.instances() {
		for _, a := range i.Held() {
			if !slices.Contains(all, a.Prefix.Addr()) {
				all = append(all, a.Prefix.Addr())
			}
		}
	}
	return all
}
