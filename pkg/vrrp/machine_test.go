package vrrp

import (
	"flag"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	// One simulated life takes microseconds, so many more than rapid's 100 fit; the flag still overrides it.
	if err := flag.Set("rapid.checks", "3000"); err != nil {
		panic(err)
	}
	m.Run()
}

// TestNoPacketBreaksTheMachine gives one machine any events and packets, good and bad, in any order.
func TestNoPacketBreaksTheMachine(t *testing.T) {
	const longest = 40950 * time.Millisecond
	rapid.Check(t, func(t *rapid.T) {
		cfg := drawConfig(t)
		m := New(cfg)
		now := Time(0)
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			now += time.Duration(rapid.Int64Range(0, int64(2*cfg.Interval)).Draw(t, "pause"))
			event := drawEvent(t, cfg)
			before := *m
			actions := m.Step(now, event)
			if p, ok := event.(Packet); ok {
				if wrong := answerIsWrong(before, *m, p, actions); wrong != "" {
					t.Fatalf("at %s %s: packet %+v, actions %+v,\nbefore %+v\nafter  %+v", now, wrong, p, actions, before, *m)
				}
			}
			if wrong := broken(m, now, longest); wrong != "" {
				t.Fatalf("at %s after %+v: %s: %+v", now, event, wrong, m)
			}
			if _, ok := event.(Tick); ok {
				if deadline, ok := m.Deadline(); ok && deadline <= now {
					t.Fatalf("the deadline after a tick at %s is %s", now, deadline)
				}
			}
		}
	})
}

// answerIsWrong checks the actions that answer a packet: refused means that nothing else happens at all.
func answerIsWrong(before, after Machine, p Packet, actions []Action) string {
	if len(actions) == 0 {
		if !reflect.DeepEqual(before, after) {
			return "a packet that is none of our business changed the machine"
		}
		return ""
	}
	switch first := actions[0].(type) {
	case Refused:
		if !reflect.DeepEqual(before, after) {
			return "a refused packet changed the machine"
		}
		if first.Source != p.Source || first.Reason == "" || !strings.Contains(first.Text, p.Source.String()) || strings.Contains(first.Text, "\n") {
			return "a refusal does not say who and why in one line"
		}
		if first.Reason == RefusedCollision && len(actions) == 2 {
			if m, ok := actions[1].(Mismatch); ok && m.Kind == MismatchCollision {
				return ""
			}
		}
		if len(actions) > 1 {
			return "a refused packet has an effect"
		}
	case Accepted:
		if p.TTL != 255 || p.Destination != group || p.Fragment || p.Source == before.source || p.Payload[1] != before.cfg.VRID {
			return "a packet is accepted that must not be"
		}
		if len(actions) < 2 {
			return "an accepted advert is not compared"
		}
		if m, ok := actions[1].(Mismatch); !ok || m.Source != p.Source || (m.Kind == "") != (m.Text == "") {
			return "an accepted advert is not compared"
		}
		for _, action := range actions[2:] {
			if m, ok := action.(Mismatch); ok && m.Kind == "" {
				continue // a second MASTER is taken back
			}
			switch action.(type) {
			case Accepted, Refused, Mismatch, AddAddresses, RemoveAddresses, Stopped:
				return fmt.Sprintf("a packet must not lead to %T", action)
			}
		}
	default:
		return "the answer to a packet begins with neither Accepted nor Refused"
	}
	return ""
}

func drawConfig(t *rapid.T) Config {
	c := Config{
		Version:      rapid.SampledFrom([]uint8{2, 3}).Draw(t, "version"),
		VRID:         51,
		Priority:     rapid.Uint8Range(1, 255).Draw(t, "priority"),
		Preempt:      rapid.Bool().Draw(t, "preempt"),
		PreemptDelay: rapid.SampledFrom([]time.Duration{0, 0, 5 * time.Second}).Draw(t, "preempt delay"),
		Addresses:    rapid.SliceOfN(rapid.SampledFrom([]netip.Addr{vip, netip.MustParseAddr("10.9.0.101"), netip.MustParseAddr("10.9.0.102")}), 1, 3).Draw(t, "addresses"),
	}
	if c.Version == 2 {
		c.Interval = time.Duration(rapid.IntRange(1, 3).Draw(t, "seconds")) * time.Second
		c.Password = rapid.SampledFrom([]string{"", "1111", "22222222"}).Draw(t, "password")
	} else {
		c.Interval = time.Duration(rapid.IntRange(1, 4095).Draw(t, "centiseconds")) * centisecond
	}
	return c
}

func drawEvent(t *rapid.T, cfg Config) Event {
	source := rapid.SampledFrom([]netip.Addr{lb1, lb2, netip.MustParseAddr("10.9.0.3"), vip, {}}).Draw(t, "source")
	switch rapid.SampledFrom([]string{"packet", "packet", "packet", "packet", "tick", "tick", "tick", "start", "start", "fail", "source", "configure", "stop"}).Draw(t, "event") {
	case "tick":
		return Tick{}
	case "start":
		return Start{Source: lb1, Resume: rapid.Bool().Draw(t, "resume")}
	case "fail":
		return Fail{Reason: "no carrier"}
	case "source":
		return SourceChange{Source: lb1}
	case "stop":
		return Stop{}
	case "configure":
		other := drawConfig(t)
		other.Version, other.Interval = cfg.Version, cfg.Interval // of a version; see Configure
		return Configure{Config: other}
	}
	p := Packet{
		Source:      source,
		Destination: rapid.SampledFrom([]netip.Addr{group, group, group, lb1, {}}).Draw(t, "destination"),
		TTL:         rapid.SampledFrom([]uint8{255, 255, 255, 254, 0}).Draw(t, "ttl"),
		Fragment:    rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "fragment"),
	}
	if rapid.Bool().Draw(t, "random bytes") {
		p.Payload = rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "payload")
		return p
	}
	from := New(drawConfig(t))
	if rapid.Bool().Draw(t, "a good peer") {
		from = New(cfg)
		p.Source, p.Destination, p.TTL, p.Fragment = lb2, group, 255, false
	}
	a := from.advert(rapid.Uint8().Draw(t, "priority"))
	p.Payload = a.Append(nil, lb2, group)
	if rapid.SampledFrom([]bool{false, false, true}).Draw(t, "damage") {
		p.Payload[rapid.IntRange(0, len(p.Payload)-1).Draw(t, "where")] = rapid.Byte().Draw(t, "what")
	}
	return p
}

func TestTheConfigurationIsCopied(t *testing.T) {
	cfg := Config{Version: 2, VRID: 51, Priority: Owner, Interval: time.Second, Addresses: []netip.Addr{vip}}
	m := New(cfg)
	cfg.Addresses[0] = lb2
	if a := m.Step(0, Start{Source: lb1})[0].(Send).Advert; a.Addresses[0] != vip {
		t.Errorf("after New the caller can change the address to %s", a.Addresses[0])
	}
	next := []netip.Addr{vip}
	m.Step(0, Configure{Config: Config{Version: 2, VRID: 51, Priority: Owner, Interval: time.Second, Addresses: next}})
	next[0] = lb2
	if a := m.Step(time.Second, Tick{})[0].(Send).Advert; a.Addresses[0] != vip {
		t.Errorf("after Configure the caller can change the address to %s", a.Addresses[0])
	}
}

func TestStatesHaveTheirNames(t *testing.T) {
	for state, name := range map[State]string{Init: "INIT", Backup: "BACKUP", Master: "MASTER", Fault: "FAULT"} {
		if state.String() != name {
			t.Errorf("state %d is called %s, want %s", state, state, name)
		}
	}
}

func BenchmarkStepAdvert(b *testing.B) {
	m := New(Config{Version: 3, VRID: 51, Priority: 100, Interval: time.Second, Preempt: true, Addresses: []netip.Addr{vip}})
	m.Step(0, Start{Source: lb1})
	payload := Advert{Version: 3, VRID: 51, Priority: 150, Interval: time.Second, Addresses: []netip.Addr{vip}}.Append(nil, lb2, group)
	b.ReportAllocs()
	for now := Time(0); b.Loop(); now++ {
		m.Step(now, Packet{Source: lb2, Destination: group, TTL: 255, Payload: payload})
	}
}
