package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// openAgain is the time between attempts to open IPVS where it can't be had.
const openAgain = 10 * time.Second

// both is an XDP plane with the kernel's IPVS beside it, which has the services that only IPVS can serve. Their packets pass the
// XDP programs like those of no service. Without such a service there is no IPVS.
type both struct {
	*xdp.Plane       // for what it alone can do
	xdp        Plane // the same one
	open       func() (Plane, error)
	log        *slog.Logger

	mu     sync.Mutex
	ipvs   Plane        // nil: not needed, or not to be had
	has    []lb.Service // as applied
	failed error        // why it can't be had
	tried  time.Time
}

// divide parts a wish between the planes.
func divide(s lb.State) (forXDP, forIPVS lb.State) {
	forXDP = s
	for n, service := range s.Services {
		switch needsIPVS := service.OnlyIPVS() != ""; {
		case needsIPVS && len(forIPVS.Services) == 0:
			forXDP.Services = append([]lb.Service(nil), s.Services[:n]...)
			fallthrough
		case needsIPVS:
			forIPVS.Services = append(forIPVS.Services, service)
		case len(forIPVS.Services) > 0:
			forXDP.Services = append(forXDP.Services, service)
		}
	}
	return forXDP, forIPVS
}

// Apply gives each plane its own services. What one can't do doesn't hold up the other. A service that moves is on its new plane
// before it leaves the old one: in between, the kernel itself would answer its packets with resets.
func (b *both) Apply(ctx context.Context, s lb.State) error {
	forXDP, forIPVS := divide(s)
	all := forIPVS
	for _, had := range b.has {
		if !slices.ContainsFunc(forIPVS.Services, func(s lb.Service) bool { return s.Key == had.Key }) {
			all.Services = append(all.Services[:len(all.Services):len(all.Services)], had)
		}
	}
	onIPVS := b.applyIPVS(ctx, all)
	onXDP := b.xdp.Apply(ctx, forXDP)
	if onXDP == nil && len(all.Services) > len(forIPVS.Services) {
		onIPVS = b.applyIPVS(ctx, forIPVS)
	}
	return errors.Join(onXDP, onIPVS)
}

func (b *both) applyIPVS(ctx context.Context, s lb.State) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ipvs == nil && len(s.Services) == 0 {
		b.failed = nil
		return nil
	}
	if b.ipvs == nil && (b.failed == nil || time.Since(b.tried) >= openAgain) {
		b.tried = time.Now()
		b.ipvs, b.failed = b.open()
	}
	if b.failed != nil {
		var names []string
		for _, service := range s.Services {
			names = append(names, service.Name)
		}
		return fmt.Errorf("services on IPVS get no packets (%s), while the others are forwarded: %w", strings.Join(names, ", "), b.failed)
	}
	err := b.ipvs.Apply(ctx, s)
	for _, service := range s.Services {
		if !slices.ContainsFunc(b.has, func(had lb.Service) bool { return had.Key == service.Key }) {
			b.log.Info("service is on IPVS beside the others", "service", service.Name, "reason", service.OnlyIPVS())
		}
	}
	b.has = s.Services
	if err != nil || len(s.Services) > 0 {
		return err
	}
	err = b.ipvs.Close()
	b.ipvs = nil
	return err
}

// besides says what is set otherwise than IPVS needs, and why it is not there if a service needs it.
func (b *both) besides() (differences []string, failed error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if reporter, ok := b.ipvs.(interface{ Differences() []string }); ok {
		differences = reporter.Differences()
	}
	return differences, b.failed
}

// Fits says why XDP has no room for its part of a wish.
func (b *both) Fits(s lb.State) error {
	forXDP, _ := divide(s)
	return b.Plane.Fits(forXDP)
}

// Counters reads both planes.
func (b *both) Counters() (lb.Counters, error) {
	c, err := b.xdp.Counters()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil || b.ipvs == nil {
		return c, err
	}
	more, err := b.ipvs.Counters()
	maps.Copy(c.RealServers, more.RealServers)
	return c, err
}

// Close lets go of both planes, which go on forwarding.
func (b *both) Close() error {
	err := b.xdp.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ipvs != nil {
		err = errors.Join(err, b.ipvs.Close())
		b.ipvs = nil
	}
	return err
}

// Remove ends the forwarding of both.
func (b *both) Remove() error {
	err := b.xdp.Remove()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ipvs != nil {
		err = errors.Join(err, b.ipvs.Remove(), b.ipvs.Close())
		b.ipvs = nil
	}
	return err
}
