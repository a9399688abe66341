package director

import (
	"context"
	"errors"
	"strings"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// Plan says what a reload would change if the file had this text, or with nil with the text that it has, and changes nothing.
// The error is that there is nothing to compare; what is wrong with a file is in the Plan.
func (d *Director) Plan(ctx context.Context, file string, text []byte) (*status.Plan, error) {
	var cfg *config.Config
	var err error
	if text == nil {
		file = d.opts.ConfigFile
		cfg, err = config.Load(file)
	} else {
		cfg, err = config.Parse(file, text)
	}
	p := &status.Plan{File: file, Problems: []string{}, Warnings: []string{}, Refused: []string{}, Changes: []status.Change{}}
	var problems config.Problems
	if errors.As(err, &problems) {
		p.Problems = strings.Split(err.Error(), "\n")
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		p.Warnings = append(p.Warnings, w.String())
	}
	var old *config.Config
	at := here{masters: map[string]bool{}}
	if err := d.ask(ctx, func() error {
		if d.stopping {
			return errStopping
		}
		old, at.plane = d.cfg, d.plane.name
		for _, i := range d.report.Instances {
			at.masters[i.Name] = i.State == vrrp.Master
		}
		err = d.possible(cfg)
		return nil
	}); err != nil {
		return nil, err
	}
	p.Changes = append(p.Changes, compare(old, cfg, at)...)
	for _, reason := range []error{needsRestart(p.Changes), err} {
		if reason != nil {
			p.Refused = append(p.Refused, strings.Split(reason.Error(), "\n")...)
		}
	}
	return p, nil
}
