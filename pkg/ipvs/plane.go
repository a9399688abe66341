// Package ipvs is the plane that forwards by the kernel's IPVS, for machines where XDP can't run: it makes the
// kernel's virtual services equal to a wished lb.State, and counts what they forwarded.
//
// IPVS may have other users, keepalived for one. A Plane changes and deletes only the services that it made itself,
// also after a restart: it keeps a record of them in a file. A wished service that exists already and isn't in that
// record is left alone, and reported.
package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/statefile"
)

// Plane is IPVS as one director uses it. Its methods may be called from several goroutines; they wait for one another.
// All calls must come from the network namespace that Open was called in.
type Plane struct {
	log    *slog.Logger
	kernel kernel
	record record

	mu          sync.Mutex
	ours        map[lb.ServiceKey]bool // made by us; each is in the record
	wish        []lb.Service           // the last one applied
	tallies     map[lb.ServerKey]*tally
	counters    *statefile.Counters // what the tallies are made of
	differences []string
}

// Open connects to the kernel's IPVS, and loads its modules if they are missing. The services that are named in
// stateFile and still exist are taken over as they are, so that a director can be restarted under traffic; Apply then
// changes what the new wish has different. The file's folder is made if need be. The file counts only until the next
// boot. An error names the cure.
func Open(stateFile string, log *slog.Logger) (*Plane, error) {
	k, err := dial()
	if err != nil {
		return nil, fmt.Errorf("open ipvs: %w", err)
	}
	p, err := open(k, stateFile, log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ipvs: %w", err), k.Close())
	}
	return p, nil
}

func open(k kernel, stateFile string, log *slog.Logger) (*Plane, error) {
	p := &Plane{log: log, kernel: k, record: record{path: stateFile}, tallies: map[lb.ServerKey]*tally{}}
	boot, err := statefile.BootID()
	if err != nil {
		return nil, err
	}
	p.counters = statefile.NewCounters(stateFile+".counters", boot)
	recorded, err := p.record.load()
	if err != nil {
		// Losing the record costs an operator one ipvsadm -D; not starting costs the service.
		log.Warn("the record of our ipvs services is unreadable: services of an earlier run count as foreign", "error", err)
	}
	found, err := read(k)
	if err != nil {
		return nil, err
	}
	p.ours = map[lb.ServiceKey]bool{}
	for key := range found.services {
		if recorded[key.String()] {
			p.ours[key] = true
		}
	}
	if len(p.ours) > 0 {
		log.Info("took over the ipvs services of an earlier run", "services", keys(p.ours))
	}
	return p, nil
}

// Apply makes the kernel's services so. A real server that is down, or whose next hop isn't known with direct return, is
// removed, which ends its flows and frees its persistent clients; one with weight 0 stays, with weight 0. What exists already is not
// written again.
//
// One service that can't be made so doesn't hold up the others; the error has all of them. After a change everything
// is read back, and a difference is an error too. The caller may simply apply again.
func (p *Plane) Apply(ctx context.Context, s lb.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, err := p.read()
	if err != nil {
		return fmt.Errorf("apply services to ipvs: %w", err)
	}
	p.wish = s.Services
	p.forget()
	var failed []error
	wish := make([]lb.Service, 0, len(s.Services))
	for _, service := range s.Services {
		if _, exists := found.services[service.Key]; exists && !p.ours[service.Key] {
			failed = append(failed, foreignError(service))
			continue
		}
		wish = append(wish, service)
	}
	if len(s.Services) > 0 {
		p.adjust(s.Services, found.foreign(p.ours))
	}
	if steps := plan(found, wish, p.ours); len(steps) > 0 {
		failed = append(failed, p.write(ctx, wish, steps)...)
	}
	if err := p.record.save(keys(p.ours)); err != nil {
		failed = append(failed, fmt.Errorf("%w: after a restart, our services would count as foreign", err))
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("apply services to ipvs: %w", err)
	}
	return nil
}

// write takes the steps and compares what came of them.
func (p *Plane) write(ctx context.Context, wish []lb.Service, steps []step) []error {
	// The record comes first: if we die in between, the next run finds one service too many in it, which doesn't
	// exist, and drops it; but it never takes a service of ours for somebody else's. An error comes again at the end.
	claim := maps.Clone(p.ours)
	for _, service := range wish {
		claim[service.Key] = true
	}
	_ = p.record.save(keys(claim))

	var failed []error
	skip := map[lb.ServiceKey]bool{}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return append(failed, err)
		}
		if skip[step.service] {
			continue
		}
		p.log.Debug("ipvs", "service", step.service, "change", step.text)
		if err := step.run(p.kernel); err != nil {
			failed = append(failed, step.failed(err))
			skip[step.service] = true
			continue
		}
		if step.creates != "" {
			p.ours[step.service] = true
		}
	}

	found, err := p.read()
	if err != nil {
		return append(failed, fmt.Errorf("read back: %w", err))
	}
	for _, step := range plan(found, wish, p.ours) {
		if !skip[step.service] {
			failed = append(failed, fmt.Errorf("service %s: the kernel took every change, but still needs: %s", step.service, step.text))
		}
	}
	return failed
}

// read takes a picture of the kernel's services, notes what our real servers counted so far, before anything that a
// caller changes can reset that, and forgets the services that somebody else has deleted.
func (p *Plane) read() (snapshot, error) {
	found, err := read(p.kernel)
	if err != nil {
		return snapshot{}, err
	}
	for _, t := range p.tallies {
		t.flows, t.active = 0, 0 // unless the real server is still there
	}
	for key := range p.ours {
		service, exists := found.services[key]
		if !exists {
			delete(p.ours, key)
			continue
		}
		p.observe(key, service.destinations)
	}
	return found, nil
}

// Differences names the settings of IPVS that are not as this plane needs them, with the reason and the cure, as of
// the last Apply. They are settings of the whole machine, so nothing is set while IPVS has another user.
func (p *Plane) Differences() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.differences)
}

// Remove deletes our services from the kernel, and their record. Settings stay as they are: what they were before may
// be long out of date, and somebody may rely on them by now.
func (p *Plane) Remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, err := p.read()
	if err != nil {
		return fmt.Errorf("remove services from ipvs: %w", err)
	}
	var failed []error
	for _, step := range plan(found, nil, p.ours) {
		if err := step.run(p.kernel); err != nil {
			failed = append(failed, step.failed(err))
			continue
		}
		delete(p.ours, step.service)
	}
	failed = append(failed, p.record.save(keys(p.ours)))
	p.wish = nil
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("remove services from ipvs: %w", err)
	}
	return nil
}

// Close ends the connection to the kernel. The services stay and go on forwarding.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.counters.Close(), p.kernel.Close())
}

func foreignError(s lb.Service) error {
	return fmt.Errorf("service %s (%s): exists already and is not ours, so it stays as it is: stop what made it (keepalived?), then ipvsadm -D %s",
		s.Name, s.Key, option(s.Key))
}

// option is how ipvsadm is told a service.
func option(key lb.ServiceKey) string {
	_, place, _ := strings.Cut(key.String(), " ")
	switch {
	case key.Mark != 0 && key.Address.Is6():
		return fmt.Sprintf("-f %d -6", key.Mark)
	case key.Mark != 0:
		return fmt.Sprintf("-f %d", key.Mark)
	case key.Protocol == lb.UDP:
		return "-u " + place
	case key.Protocol == lb.SCTP:
		return "--sctp-service " + place
	}
	return "-t " + place
}

// keys returns the services in a fixed order, for a log line or a file.
func keys(services map[lb.ServiceKey]bool) []string {
	list := make([]string, 0, len(services))
	for key := range services {
		list = append(list, key.String())
	}
	slices.Sort(list)
	return list
}
