package status

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Plan is what a reload of a file would change. JSON names are part of the control API (/v1/plan).
type Plan struct {
	File     string   `json:"file"`
	Problems []string `json:"problems"` // of an invalid file, one line each, as check tells them; then there is nothing else
	Warnings []string `json:"warnings"` // of a valid one
	Refused  []string `json:"refused"`  // why a reload would leave everything as it is, though the file is valid
	Changes  []Change `json:"changes"`  // in the order of the configuration
}

// The ways of a Change.
const (
	Added   = "+"
	Removed = "-"
	Changed = "~"
)

// Change is something in the configuration that is added, removed, or has other values.
type Change struct {
	Op   string      `json:"op"`   // one of Added, Removed, Changed
	Kind string      `json:"kind"` // instance, sync group, script, service, check, real server; "top level", or a key of it, such as dataplane
	Name string      `json:"name"` // VI_1, web, web/10.0.0.3; empty at the top level
	Keys []KeyChange `json:"keys,omitempty"`
	// Effect is what follows, in one line; empty: nothing is interrupted, and nothing is to be told.
	Effect     string `json:"effect,omitempty"`
	Interrupts bool   `json:"interrupts"` // Effect is something that clients may notice
}

// KeyChange is one key with another value, as YAML has it. A secret is never shown.
type KeyChange struct {
	Key     string `json:"key"` // below that of the Change: virtual_router_id, garp.repeat
	Old     string `json:"old"`
	New     string `json:"new"`
	Restart bool   `json:"restart,omitempty"` // only a restart of the service can change it
}

// Applies says that a reload would put the file into force.
func (p *Plan) Applies() bool { return len(p.Problems) == 0 && len(p.Refused) == 0 }

// Interruptions are the effects that clients may notice.
func (p *Plan) Interruptions() []string {
	var list []string
	for _, c := range p.Changes {
		if c.Interrupts {
			list = append(list, c.Effect)
		}
	}
	return list
}

// Text writes the plan for a terminal; not its problems and warnings, which belong to stderr. It returns the error of the write.
func (p *Plan) Text(w io.Writer) error {
	if len(p.Problems) > 0 {
		return nil
	}
	var out bytes.Buffer
	for _, c := range p.Changes {
		out.WriteString(plain(c.Op + " " + strings.TrimSpace(c.Kind+" "+c.Name)))
		if c.Op == Changed && len(c.Keys) == 1 {
			out.WriteString(": " + plain(c.Keys[0].text()) + "\n")
		} else {
			out.WriteString("\n")
			for _, k := range c.Keys {
				out.WriteString("      " + plain(k.text()) + "\n")
			}
		}
		if c.Effect != "" {
			mark := "    "
			if c.Interrupts {
				mark = "  ! "
			}
			out.WriteString(mark + plain(c.Effect) + "\n")
		}
	}
	if len(p.Changes) > 0 {
		out.WriteString("\n")
	}
	out.WriteString(plain(p.verdict()) + "\n")
	for _, reason := range p.Refused {
		for line := range strings.Lines(reason) {
			out.WriteString("  " + plain(strings.TrimRight(line, "\n")) + "\n")
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

func (k KeyChange) text() string {
	text := fmt.Sprintf("%s: %s -> %s", k.Key, k.Old, k.New)
	if k.Restart {
		text += " (only a restart can change this)"
	}
	return text
}

// verdict is the last line: what would come of a reload.
func (p *Plan) verdict() string {
	added, removed, changed := 0, 0, 0
	for _, c := range p.Changes {
		switch c.Op {
		case Added:
			added++
		case Removed:
			removed++
		default:
			changed++
		}
	}
	counts := fmt.Sprintf("%d added, %d removed, %d changed", added, removed, changed)
	interruptions := len(p.Interruptions())
	switch {
	case !p.Applies():
		return p.File + ": a reload would be refused, and everything would stay as it is:"
	case len(p.Changes) == 0:
		return p.File + ": nothing differs from the configuration in force"
	case interruptions == 0:
		return p.File + ": " + counts + "; a reload interrupts nothing"
	}
	return fmt.Sprintf("%s: %s; a reload interrupts what is marked with ! above (%d)", p.File, counts, interruptions)
}
