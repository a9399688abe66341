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

// TestNoPacketBreaksTheMachine gives the machines of one sync group, or one alone, any events and packets, good and bad,
// in any order.
func TestNoPacketBreaksTheMachine(t *testing.T) {
	const longest = 40950 * time.Millisecond
	rapid.Check(t, func(t *rapid.T) {
		var group Group
		for range rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(t, "members") {
			group = append(group, New(drawConfig(t)))
		}
		now := Time(0)
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			member := rapid.IntRange(0, len(group)-1).Draw(t, "member")
			m := group[member]
			now += time.Duration(rapid.Int64Range(0, int64(2*m.cfg.Interval)).Draw(t, "pause"))
			event := drawEvent(t, m, now)
			before := make([]Machine, len(group))
			for i, m := range group {
				before[i] = *m
			}
			all := group.Step(now, member, event)
			var actions []Action
			for _, a := range all {
				if a.Member == member {
					actions = append(actions, a.Action)
				}
			}
			if p, ok := event.(Packet); ok {
				if wrong := answerIsWrong(before[member], *m, p, actions, len(group) == 1); wrong != "" {
					t.Fatalf("at %s %s: packet %+v, actions %+v,\nbefore %+v\nafter  %+v", now, wrong, p, actions, before[member], *m)
				}
				for i, other := range group {
					if len(actions) > 0 && !accepted(all) && !reflect.DeepEqual(before[i], *other) {
						t.Fatalf("at %s a refused packet changed another member", now)
					}
				}
			}
			for _, m := range group {
				if wrong := broken(m, now, longest); wrong != "" {
					t.Fatalf("at %s after %+v: %s: %+v", now, event, wrong, m)
				}
			}
			if _, ok := event.(Tick); ok {
				if deadline, ok := m.Deadline(); ok && deadline <= now {
					t.Fatalf("the deadline after a tick at %s is %s", now, deadline)
				}
			}
			if rapid.IntRange(0, 30).Draw(t, "another group") == 0 {
				group = group[:rapid.IntRange(1, len(group)).Draw(t, "members left")]
				group.Step(now, 0, Tick{})
			}
		}
	})
}

// answerIsWrong checks the actions that answer a packet: refused means that nothing else happens at all.
func answerIsWrong(before, after Machine, p Packet, actions []Action, alone bool) string {
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
		destination := multicast4
		if before.source.Is6() {
			destination = multicast6
		}
		if len(before.cfg.Peers) > 0 {
			destination = before.source
		}
		if p.TTL != 255 || p.Destination != destination || p.Fragment || p.Source == before.source || p.Payload[1] != before.cfg.VRID {
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
			case AddAddresses:
				if !alone {
					continue // for the group
				}
				return "a packet must not make anybody MASTER"
			case Accepted, Refused, Mismatch, RemoveAddresses, Stopped:
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
		c.Checksum = rapid.SampledFrom([]ChecksumForm{PseudoHeader, MessageOnly}).Draw(t, "checksum")
	}
	ipv6 := c.Version == 3 && rapid.Bool().Draw(t, "IPv6")
	if ipv6 {
		c.Addresses = rapid.SliceOfN(rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("fe80::100"), netip.MustParseAddr("2001:db8::1")}), 1, 2).Draw(t, "addresses")
	}
	if rapid.IntRange(0, 3).Draw(t, "unicast") == 0 {
		c.Peers = []netip.Addr{lb2}
		if ipv6 {
			c.Peers[0] = ll2
		}
	}
	return drawKnobs(t, c)
}

// drawKnobs changes what a reload may change at any time.
func drawKnobs(t *rapid.T, c Config) Config {
	c.Priority = rapid.Uint8Range(1, 255).Draw(t, "priority")
	c.Adjust = rapid.SampledFrom([]int{0, 0, -300, -20, 20, 300}).Draw(t, "adjust")
	c.Preempt = rapid.Bool().Draw(t, "preempt")
	c.Yield = rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "yield")
	c.Deaf = rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "deaf")
	c.Hold = rapid.SampledFrom([]string{"", "", "", "", "maintenance", "check web failed"}).Draw(t, "hold")
	c.DownAdverts = rapid.SampledFrom([]int{0, 0, 1, 5}).Draw(t, "down adverts")
	c.Announce = Announcing{
		Repeat:      rapid.IntRange(0, 3).Draw(t, "repeat"),
		Delay:       time.Duration(rapid.IntRange(-1, 3).Draw(t, "delay")) * time.Second,
		Refresh:     time.Duration(rapid.IntRange(0, 3).Draw(t, "refresh")) * time.Second,
		LowerRepeat: rapid.IntRange(-1, 3).Draw(t, "lower repeat"),
		LowerDelay:  time.Duration(rapid.IntRange(-1, 3).Draw(t, "lower delay")) * time.Second,
	}
	return c
}

func drawEvent(t *rapid.T, m *Machine, now Time) Event {
	cfg, ours, peer, group := m.cfg, lb1, lb2, multicast4
	if cfg.Addresses[0].Is6() {
		ours, peer, group = ll1, ll2, multicast6
	}
	if len(cfg.Peers) > 0 {
		group = ours
	}
	source := rapid.SampledFrom([]netip.Addr{ours, peer, peer.Next(), cfg.Addresses[0], lb2, ll2, {}}).Draw(t, "source")
	switch rapid.SampledFrom([]string{"packet", "packet", "packet", "packet", "tick", "tick", "tick", "start", "start", "fail", "source",
		"configure", "configure", "heard", "resigned", "stop"}).Draw(t, "event") {
	case "tick":
		return Tick{}
	case "start":
		return Start{Source: ours, Resume: rapid.Bool().Draw(t, "resume"), HandedOver: rapid.Bool().Draw(t, "handed over")}
	case "fail":
		return Fail{Reason: rapid.SampledFrom([]string{"no carrier", "no address"}).Draw(t, "reason")}
	case "source":
		return SourceChange{Source: ours}
	case "stop":
		return Stop{}
	case "resigned":
		return Resigned{}
	case "heard":
		return Heard{At: now - time.Duration(rapid.Int64Range(0, int64(cfg.Interval)).Draw(t, "ago"))}
	case "configure":
		return Configure{Config: drawKnobs(t, cfg)}
	}
	p := Packet{
		Source:      source,
		Destination: rapid.SampledFrom([]netip.Addr{group, group, group, ours, multicast4, multicast6, {}}).Draw(t, "destination"),
		TTL:         rapid.SampledFrom([]uint8{255, 255, 255, 254, 0}).Draw(t, "ttl"),
		Fragment:    rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "fragment"),
	}
	if rapid.Bool().Draw(t, "random bytes") {
		p.Payload = rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "payload")
		return p
	}
	from := New(cfg)
	if rapid.IntRange(0, 3).Draw(t, "another cluster") == 0 {
		from = New(drawConfig(t))
	} else {
		p.Source, p.Destination, p.TTL, p.Fragment = peer, group, 255, false
	}
	a := from.advert(rapid.Uint8().Draw(t, "priority"))
	p.Payload = a.Append(nil, peer, peer)
	if p.Destination.IsValid() {
		p.Payload = a.Append(nil, peer, p.Destination)
	}
	if rapid.SampledFrom([]bool{false, false, true}).Draw(t, "damage") {
		p.Payload[rapid.IntRange(0, len(p.Payload)-1).Draw(t, "where")] = rapid.Byte().Draw(t, "what")
	}
	return p
}

func TestTheConfigurationIsCopied(t *testing.T) {
	cfg := Config{Version: 2, VRID: 51, Priority: Owner, Interval: time.Second, Addresses: []netip.Addr{vip}, Peers: []netip.Addr{lb2}}
	m := New(cfg)
	cfg.Addresses[0], cfg.Peers[0] = lb2, vip
	if a := m.Step(0, Start{Source: lb1})[0].(Send).Advert; a.Addresses[0] != vip {
		t.Errorf("after New the caller can change the address to %s", a.Addresses[0])
	}
	advert := Advert{Version: 2, VRID: 51, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{vip}}
	packet := Packet{Source: lb2, Destination: lb1, TTL: 255, Payload: advert.Append(nil, lb2, lb1)}
	if got, ok := m.Step(0, packet)[0].(Accepted); !ok {
		t.Errorf("after New the caller can change the peers: %+v", got)
	}
	next, peers := []netip.Addr{vip}, []netip.Addr{lb2}
	m.Step(0, Configure{Config: Config{Version: 2, VRID: 51, Priority: Owner, Interval: time.Second, Addresses: next, Peers: peers}})
	next[0], peers[0] = lb2, vip
	if a := m.Step(time.Second, Tick{})[0].(Send).Advert; a.Addresses[0] != vip {
		t.Errorf("after Configure the caller can change the address to %s", a.Addresses[0])
	}
	if got, ok := m.Step(time.Second, packet)[0].(Accepted); !ok {
		t.Errorf("after Configure the caller can change the peers: %+v", got)
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
