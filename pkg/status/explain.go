package status

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Explanation is what becomes of one packet on a director, and why. JSON names are part of the control API (/v1/explain).
type Explanation struct {
	Packet     string     `json:"packet"`              // "a SYN from 192.0.2.1:40000 to tcp 192.168.5.100:80"
	Interface  string     `json:"interface,omitempty"` // that it is for; empty: none of ours
	Plane      string     `json:"plane"`               // of the service, or of those that there are
	Service    string     `json:"service,omitempty"`   // name; empty: none
	Scheduler  string     `json:"scheduler,omitempty"`
	Verdict    string     `json:"verdict"` // as in the metric of verdicts; "ipvs": the kernel decides
	Drop       string     `json:"drop_reason,omitempty"`
	Advert     string     `json:"advert,omitempty"`      // what becomes of an advert for one of our virtual routers
	RealServer string     `json:"real_server,omitempty"` // empty: none, or nobody knows
	Why        string     `json:"why,omitempty"`         // flow, persistence, turn, hash, fallback, room, least; empty: it goes nowhere, or nobody knows
	Place      uint32     `json:"place,omitempty"`       // in the schedule, from 1, with turn, hash, fallback
	Places     uint32     `json:"places,omitempty"`
	Flow       *KnownFlow `json:"flow,omitempty"` // that the plane has of it, whatever it is worth
	Stored     bool       `json:"stored"`         // it begins a flow that will be remembered
	Flooded    bool       `json:"flooded,omitempty"`
	NextHop    *NextHop   `json:"next_hop,omitempty"`
	Answer     string     `json:"answer"`          // what becomes of it, in plain words
	Notes      []string   `json:"notes,omitempty"` // what else to know, or to do
	Frame      []byte     `json:"frame,omitempty"` // as it would be sent, or as it came
}

// KnownFlow is a flow as a plane remembers it.
type KnownFlow struct {
	State      string  `json:"state"`        // opening, established, closing, udp, or IPVS's name
	Left       float64 `json:"left_seconds"` // until it is forgotten; 0: it is
	RealServer string  `json:"real_server,omitempty"`
}

// NextHop is the way out of a director.
type NextHop struct {
	Local     bool   `json:"local,omitempty"` // it is this box
	Interface string `json:"interface,omitempty"`
	VLAN      uint16 `json:"vlan,omitempty"`
	MAC       string `json:"mac,omitempty"`
	SourceMAC string `json:"source_mac,omitempty"`
}

// Describe makes Answer, and notes on what to do, from everything else.
func (e *Explanation) Describe() {
	packet := e.Packet
	if e.Service != "" {
		packet += " (service " + e.Service + ")"
	}
	outcome, note := e.outcome()
	e.Answer = packet + " " + outcome
	if note != "" {
		e.Notes = append([]string{note}, e.Notes...)
	}
}

// Sent says that the packet leaves this box for a real server.
func (e *Explanation) Sent() bool {
	return e.Verdict == "tx" || e.Verdict == "redirect" || e.Verdict == "to_previous_master"
}

// outcome is what becomes of the packet, and what to do about it.
func (e *Explanation) outcome() (text, note string) {
	switch {
	case e.Verdict == "drop" && e.Advert != "":
		return "is an advert, and is dropped: " + e.Advert, ""
	case e.Verdict == "drop":
		if known, ok := drops()[e.Drop]; ok {
			return "is dropped: " + known.text, known.note
		}
		return "is dropped: " + e.Drop, ""
	case e.Verdict == "pass_advert":
		return "is an advert, which the election sees (" + e.Advert + ")", ""
	case e.Verdict == "pass_local":
		return "goes to this very box, which is real server " + e.RealServer, ""
	case e.Verdict == "pass_refused" && !strings.HasPrefix(e.Packet, "a SYN from"):
		return "is refused by the kernel of this box: its connection is not known", "the service has unknown: refuse"
	case e.RealServer != "":
		return "goes to " + e.RealServer, ""
	}
	if known, ok := verdicts()[e.Verdict]; ok {
		return known.text, known.note
	}
	return "has the verdict " + e.Verdict, ""
}

// outcome is what becomes of a packet, and what else to know about it; empty: nothing.
type outcome struct{ text, note string }

func verdicts() map[string]outcome {
	return map[string]outcome{
		"ipvs":           {"goes where IPVS in the kernel decides", ""},
		"pass_not_ours":  {"belongs to no service: the kernel of this box takes it", ""},
		"pass_other_mac": {"is left alone: its destination MAC address is another box's", "switches flood such frames; the director that they are for balances them"},
		"pass_balanced": {"was balanced by a director already: the kernel of this box takes it, as a real server does",
			"its source MAC address is another director's, or a real server's of this service"},
		"pass_refused": {"is refused at once by the kernel of this box: no real server is up", "xdirector status says of each real server why"},
		"to_previous_master": {"goes on to the director that was MASTER before, and knows its connection",
			"this director has taken over a moment ago, and has no flow of it"},
	}
}

func drops() map[string]outcome {
	limits := "limits of the service say how many are right"
	return map[string]outcome{
		"fragment":       {"it is a part of a packet whose first part has not been seen here", "parts that overtake the first one are lost; TCP and the path MTU avoid parts"},
		"fragment_short": {"it is a part of a packet that hides or changes the header of the whole", "nobody sends that but to deceive a filter"},
		"headers":        {"it has more headers of IPv6 than anybody needs", "nobody sends that but to deceive a filter"},
		"no_flow":        {"a reset, or an error, of a connection that is not known here", "nobody waits for it: nothing is to be done"},
		"second_chance":  {"the director that has taken over asks about a connection that is not known here either", "its client begins anew"},
		"no_real_server": {"no real server is up, and it is no SYN that could be refused", "xdirector status says of each real server why"},
		"denied":         {"its client is none of the service's", "allow and deny of the service say who is one"},
		"rate_packets":   {"its client sends too many packets now", limits},
		"full":           {"every real server has max_connections", "raise that of the real servers, or add one"},
		"rate_new":       {"its client opens too many connections now", limits},
	}
}

// Text writes the explanation for a terminal, as one block.
func (e *Explanation) Text(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintln(&out, plain(e.Answer))
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(t, "  %s\t%s\n", name, plain(text))
		}
	}
	row("why", e.reason())
	row("flow", e.flow())
	row("next hop", e.NextHop.text())
	row("verdict", e.verdict())
	for _, n := range e.Notes {
		row("note", n)
	}
	t.Flush()
	_, err := w.Write(out.Bytes())
	return err
}

func (e *Explanation) verdict() string {
	text := e.Verdict
	if e.Drop != "" {
		text += " (" + e.Drop + ")"
	}
	if e.Interface != "" {
		text += " on " + e.Interface
	}
	if e.Plane != "" {
		text += ", plane " + e.Plane
	}
	return text
}

// reason is Why in plain words.
func (e *Explanation) reason() string {
	place := fmt.Sprintf("place %d of %d", e.Place, e.Places)
	switch e.Why {
	case "flow":
		return "its flow is known"
	case "persistence":
		return "persistence: the client is bound to this real server"
	case "turn":
		return fmt.Sprintf("schedule %s: turn %d of %d, which the next new flow gets", e.Scheduler, e.Place, e.Places)
	case "hash":
		return fmt.Sprintf("schedule %s: the client's address is at %s", e.Scheduler, place)
	case "fallback":
		if e.Flooded {
			return "too many new flows now, so that this one is not remembered: the client's address is at " + place + " of the Maglev table"
		}
		return "it is not the first packet of a flow, and none is known: the client's address is at " + place + " of the Maglev table, on every director the same"
	case "room":
		return fmt.Sprintf("the real server whose turn it is has max_connections: %s is the next one with room", place)
	case "least":
		return fmt.Sprintf("schedule %s: it has the fewest active flows for its weight", e.Scheduler)
	}
	return e.Why
}

func (e *Explanation) flow() string {
	f := e.Flow
	if f == nil {
		if e.Stored {
			return "none yet: this packet begins one"
		}
		if e.Sent() {
			return "none, and this packet begins none"
		}
		return ""
	}
	left := time.Duration(f.Left * float64(time.Second)).Round(time.Second)
	text := fmt.Sprintf("%s, to %s", f.State, f.RealServer)
	switch {
	case f.RealServer == "":
		text = f.State + ", to a real server that is no longer there"
	case left > 0:
		text += fmt.Sprintf(", forgotten in %s without a packet", left)
	}
	if left == 0 {
		text += ", forgotten by now"
	}
	if e.Stored {
		text += "; this packet begins a new one"
	}
	return text
}

func (h *NextHop) text() string {
	switch {
	case h == nil:
		return ""
	case h.Local:
		return "this box"
	}
	text := h.MAC + " on " + h.Interface
	if h.VLAN != 0 {
		text += fmt.Sprintf(", VLAN %d", h.VLAN)
	}
	return text + ", from " + h.SourceMAC
}

// Brief is the verdict and the reason in few words: "verdict tx, flow".
func (e *Explanation) Brief() string {
	text := "verdict " + e.Verdict
	if e.Drop != "" {
		text += ", " + e.Drop
	}
	if e.Why != "" {
		text += ", " + e.Why
	}
	return text
}
