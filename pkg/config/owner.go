package config

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/xdirector/xdirector/pkg/owner"
)

// exposed says who else could change the file, with the cure; empty: nobody. uid is who reads it.
func exposed(f *os.File, uid int) string {
	rule := owner.Rule{UID: uid, What: "this file", Thing: "it", Elsewhere: "/etc/xdirector", Sticky: true}
	err := rule.Opened(f)
	if err == nil || errors.Is(err, fs.ErrNotExist) { // replaced at this moment: what is read is not what lies there now
		return ""
	}
	return strings.TrimPrefix(err.Error(), "refused: ")
}

// commands is where the configuration names commands, which the service runs; empty: nowhere.
func (c *Config) commands() string {
	if len(c.Scripts) > 0 {
		return "vrrp.scripts"
	}
	return c.notifyCommands()
}

// ownership refuses a file that others can change if it names commands: they could have their own run. Else it is a warning.
func (d *decoder) ownership(c *Config, exposed string) {
	if exposed == "" {
		return
	}
	if where := c.commands(); where != "" {
		d.report(d.placeOf(where), where, "commands are taken only from a file that nobody else can change: "+exposed)
		return
	}
	d.warnings = append(d.warnings, Problem{File: d.file, Line: 1, Column: 1, Text: exposed})
}
