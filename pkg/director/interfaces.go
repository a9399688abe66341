package director

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
)

var errNoInterfaces = errors.New("stopped while it waited for network interfaces")

// awaitInterfaces waits until every interface exists that an XDP plane needs: after a boot a bond or a VLAN may come
// late. An instance waits for its own one by itself, in FAULT. The error is errNoInterfaces after Stop.
func (d *Director) awaitInterfaces(ctx context.Context, list func() ([]net.Interface, error)) error {
	needed := len(d.cfg.Services) > 0 && d.cfg.Dataplane.Mode != config.ModeIPVS
	told := ""
	for {
		present, err := list()
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		var have, missing []string
		for _, i := range present {
			have = append(have, i.Name)
		}
		want := slices.Clone(d.cfg.Dataplane.Interfaces)
		for _, i := range d.cfg.Instances {
			want = append(want, i.Interface)
		}
		slices.Sort(want)
		for _, name := range slices.Compact(want) {
			if !slices.Contains(have, name) {
				missing = append(missing, name)
			}
		}
		text := strings.Join(missing, ", ")
		if text != told && text != "" {
			d.log.Warn("waiting for network interfaces that do not exist; if a name is wrong, correct the configuration", "missing", text, "this box has", strings.Join(have, ", "))
		}
		told = text
		if text == "" || !needed {
			return nil
		}
		d.notify("EXTEND_TIMEOUT_USEC=30000000\nSTATUS=waiting for interfaces that do not exist: " + text)
		select {
		case <-time.After(tick):
		case <-d.stops:
			return errNoInterfaces
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// checkInterfaces finds every interface that the configuration names on this box. One that is in use according to
// the old configuration may be missing: it broke down meanwhile, and that must not keep an operator from changing the
// rest.
func checkInterfaces(cfg, old *config.Config) error {
	present, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	names := map[string]bool{}
	list := ""
	for _, i := range present {
		names[i.Name] = true
		list += " " + i.Name
	}
	for _, i := range old.Instances {
		names[i.Interface] = true
	}
	for _, name := range old.Dataplane.Interfaces {
		names[name] = true
	}
	var missing []error
	for _, i := range cfg.Instances {
		if !names[i.Interface] {
			missing = append(missing, fmt.Errorf("instance %s: interface %s does not exist; this box has:%s", i.Name, i.Interface, list))
		}
	}
	if len(cfg.Services) > 0 && len(missing) == 0 {
		for _, name := range cfg.Dataplane.Interfaces {
			if !names[name] {
				missing = append(missing, fmt.Errorf("dataplane.interfaces: interface %s does not exist; this box has:%s", name, list))
			}
		}
	}
	return errors.Join(missing...)
}
