package vrrp

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestScenarios plays the files in testdata. A file holds scenarios, each a heading and lines in the order of time:
//
//	scenario backup takes over after the master-down interval
//	router version 2 priority 100 interval 1s addresses 10.9.0.100     our configuration; these are the defaults
//	0s start source 10.9.0.1                                           something happens: an event
//	0s -> BACKUP: started                                              everything the machine does, and nothing else
//	1s is BACKUP master none                                           what it tells about itself then
//
// A sync group has a line "member NAME [settings]" for each of its members, behind "router"; then the name of a member
// stands behind the time in every other line. The machine is ticked at its deadlines, except while it sleeps ("1s
// sleep until 6s"), until the time of the last line. Adverts have our own settings unless the line says otherwise.
// Accepted adverts are not shown unless the scenario says "show accepted". V-numbers and section numbers in headings
// are covered by TestEveryRuleHasItsScenario.
func TestScenarios(t *testing.T) {
	for name, body := range scenarios(t) {
		t.Run(name, func(t *testing.T) { play(t, body) })
	}
}

// scenarios returns all scenarios, by file and heading.
func scenarios(t *testing.T) map[string]string {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("find testdata/*.txt: %d files, error %v", len(files), err)
	}
	all := map[string]string{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range strings.Split("\n"+string(content), "\nscenario ")[1:] {
			name, body, _ := strings.Cut(text, "\n")
			name = strings.TrimSuffix(filepath.Base(file), ".txt") + "/" + name
			if _, twice := all[name]; twice {
				t.Fatalf("scenario %q is there twice", name)
			}
			all[name] = body
		}
	}
	return all
}

// stage is one scenario while it is played.
type stage struct {
	t      *testing.T
	cfg    Config
	group  Group
	names  []string            // of the members; none: one machine without a name
	asleep Time                // no ticks before
	show   bool                // accepted adverts too
	told   map[netip.Addr]bool // mismatches
	got    []string
}

func play(t *testing.T, body string) {
	s := &stage{t: t, told: map[netip.Addr]bool{}, cfg: Config{
		Version: 2, VRID: 51, Priority: 100, Interval: time.Second, Preempt: true,
		Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.100")},
	}}
	var want []string
	end := Time(0)
	for line := range strings.Lines(body) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0][0] == '#':
			continue
		case words[0] == "router":
			s.cfg = configure(t, s.cfg, words[1:])
			continue
		case words[0] == "member":
			cfg := s.cfg
			cfg.Name = words[1]
			cfg = configure(t, cfg, words[2:])
			s.group, s.names = append(s.group, New(cfg)), append(s.names, words[1])
			continue
		case words[0] == "show":
			s.show = true
			continue
		case s.group == nil:
			s.group = Group{New(s.cfg)}
		}
		now := duration(t, words[0])
		if now < end {
			t.Fatalf("line %q is older than the one before", line)
		}
		end = now
		member, words := s.member(words[1:])
		if words[0] == "->" {
			want = append(want, s.prefix(now, member)+strings.Join(words, " "))
			continue
		}
		s.tick(now - 1) // a packet that arrives at the deadline is read first
		s.event(now, member, words)
	}
	s.tick(end)
	if diff := cmp.Diff(want, s.got); diff != "" {
		t.Errorf("what the machine does is not as written (-written +done):\n%s", diff)
	}
}

// member takes the name of a member off the words, if members have names.
func (s *stage) member(words []string) (int, []string) {
	if s.names == nil {
		return 0, words
	}
	member := slices.Index(s.names, words[0])
	if member < 0 {
		s.t.Fatalf("line %q names no member", strings.Join(words, " "))
	}
	return member, words[1:]
}

func (s *stage) prefix(now Time, member int) string {
	if s.names == nil {
		return now.String() + " "
	}
	return now.String() + " " + s.names[member] + " "
}

// tick plays all deadlines up to and including now.
func (s *stage) tick(now Time) {
	for {
		first, deadline := -1, now
		for i, m := range s.group {
			if d, ok := m.Deadline(); ok && max(d, s.asleep) <= deadline && (first < 0 || max(d, s.asleep) < deadline) {
				first, deadline = i, max(d, s.asleep)
			}
		}
		if first < 0 {
			return
		}
		s.step(deadline, first, Tick{})
		if next, ok := s.group[first].Deadline(); ok && next <= deadline {
			s.t.Fatalf("at %s: the deadline after a tick is %s, the loop would spin", deadline, next)
		}
	}
}

func (s *stage) event(now Time, member int, words []string) {
	m := s.group[member]
	value := func(i int) string {
		if i >= len(words) {
			s.t.Fatalf("line %q has too few words", strings.Join(words, " "))
		}
		return words[i]
	}
	switch words[0] {
	case "start", "resume", "handed":
		s.step(now, member, Start{Source: netip.MustParseAddr(value(2)), Resume: words[0] == "resume", HandedOver: words[0] == "handed"})
	case "source":
		s.step(now, member, SourceChange{Source: netip.MustParseAddr(value(1))})
	case "fail":
		s.step(now, member, Fail{Reason: strings.Join(words[1:], " ")})
	case "stop":
		s.step(now, member, Stop{})
	case "tick":
		s.step(now, member, Tick{})
	case "configure":
		s.step(now, member, Configure{Config: configure(s.t, m.cfg, words[1:])})
	case "hold":
		cfg := m.cfg
		cfg.Hold = strings.Join(words[1:], " ")
		s.step(now, member, Configure{Config: cfg})
	case "resigned":
		s.step(now, member, Resigned{})
	case "heard":
		s.step(now, member, Heard{At: duration(s.t, value(1))})
	case "sleep":
		s.asleep = duration(s.t, value(2))
	case "advert":
		s.step(now, member, s.packet(m, words[1:]))
	case "alone": // the group is formed anew without this member, which no line names from then on
		s.group = slices.Delete(slices.Clone(s.group), member, member+1)
		s.names = slices.Delete(slices.Clone(s.names), member, member+1)
		s.step(now, 0, Tick{})
	case "is":
		master, priority := m.Master()
		got := fmt.Sprintf("is %s master %s priority %d", m.State(), master, priority)
		if !master.IsValid() {
			got = fmt.Sprintf("is %s master none", m.State())
		}
		if want := strings.Join(words, " "); got != want {
			s.t.Errorf("at %s the machine %s, not: %s", now, got, want)
		}
	case "waits":
		if got := m.Patience(); got != duration(s.t, value(1)) {
			s.t.Errorf("at %s the machine waits %s, not: %s", now, got, value(1))
		}
	default:
		s.t.Fatalf("event %q is not known", words[0])
	}
}

// step gives an event to a member and writes down what all members do.
func (s *stage) step(now Time, member int, event Event) {
	before := make([]Machine, len(s.group))
	for i, m := range s.group {
		before[i] = *m
	}
	actions := s.group.Step(now, member, event)
	_, packet := event.(Packet)
	for i, m := range s.group {
		if packet && !accepted(actions) && !reflect.DeepEqual(before[i], *m) {
			s.t.Errorf("at %s: a refused packet changed the machine from\n%+v to\n%+v", now, before[i], *m)
		}
		if wrong := broken(m, now, 255*time.Second); wrong != "" {
			s.t.Errorf("at %s after %+v: %s: %+v", now, event, wrong, *m)
		}
	}
	for _, a := range actions {
		if text := s.describe(a.Member, a.Action); text != "" {
			s.got = append(s.got, s.prefix(now, a.Member)+"-> "+text)
		}
	}
}

func accepted(actions []MemberAction) bool {
	return slices.ContainsFunc(actions, func(a MemberAction) bool { _, ok := a.Action.(Accepted); return ok })
}

func (s *stage) describe(member int, action Action) string {
	switch a := action.(type) {
	case Send:
		text := fmt.Sprintf("send priority %d", a.Advert.Priority)
		if a.Advert.Interval != s.cfg.Interval {
			text += " interval " + a.Advert.Interval.String()
		}
		if s.names == nil && !reflect.DeepEqual(a.Advert.Addresses, s.cfg.Addresses) {
			text += " addresses " + strings.ReplaceAll(list(a.Advert.Addresses), " ", "")
		}
		if a.Advert.Checksum == MessageOnly {
			text += " checksum rfc9568"
		}
		return text
	case AddAddresses:
		return "add addresses"
	case RemoveAddresses:
		return "remove addresses"
	case Announce:
		if a.Repeat != 5 {
			return fmt.Sprintf("announce %d", a.Repeat)
		}
		return "announce"
	case Changed:
		return fmt.Sprintf("%s: %s", a.To, a.Reason)
	case Stayed:
		return fmt.Sprintf("stays %s: %s", s.group[member].State(), a.Reason)
	case Accepted:
		if !s.show {
			return ""
		}
		text := fmt.Sprintf("accepted %s priority %d", a.Source, a.Priority)
		if a.Checksum == MessageOnly {
			text += " checksum rfc9568"
		}
		if a.Obeyed {
			text += " obeyed"
		}
		return text
	case Refused:
		return fmt.Sprintf("refused %s: %s", a.Reason, a.Text)
	case Mismatch:
		told := s.told[a.Source]
		s.told[a.Source] = a.Kind != ""
		switch {
		case a.Kind != "":
			return fmt.Sprintf("mismatch %s: %s", a.Kind, a.Text)
		case told:
			return "no mismatch with " + a.Source.String()
		}
		return ""
	case Stopped:
		return "stopped"
	}
	s.t.Fatalf("action %T is not known", action)
	return ""
}

// packet builds an advert like our own with the differences that the words tell.
func (s *stage) packet(m *Machine, words []string) Packet {
	a := m.advert(m.cfg.Priority)
	p := Packet{Destination: multicast4, TTL: 255}
	if isIPv6(m.source) {
		p.Destination = multicast6
	}
	if len(m.cfg.Peers) > 0 {
		p.Destination = m.source
	}
	summed := netip.Addr{} // destination in the checksum, if that is another one
	var damage func([]byte) []byte
	for i := 0; i+1 < len(words); i += 2 {
		value := words[i+1]
		switch words[i] {
		case "from":
			p.Source = netip.MustParseAddr(value)
		case "to":
			p.Destination = netip.MustParseAddr(value)
		case "for":
			summed = netip.MustParseAddr(value)
		case "ttl":
			p.TTL = uint8(number(s.t, value))
		case "fragment":
			p.Fragment = value == "yes"
		case "auth":
			a.AuthType = uint8(number(s.t, value))
		case "password":
			a.AuthType, a.Password = authPassword, [8]byte{}
			copy(a.Password[:], value)
		case "cut": // bytes at the end
			damage = func(b []byte) []byte { return b[:len(b)-number(s.t, value)] }
		case "append": // bytes in hex
			damage = func(b []byte) []byte { return append(b, unhex(s.t, value)...) }
		case "damage": // of the checksum
			damage = func(b []byte) []byte { b[7] ^= 1; return b }
		case "header": // replaces the first bytes, in hex, and puts the checksum right
			damage = func(b []byte) []byte {
				copy(b, unhex(s.t, value))
				b[6], b[7] = 0, 0
				sum := add(b)
				if isIPv6(p.Source) {
					sum += pseudoHeader(p.Source, p.Destination, len(b))
				}
				b[6], b[7] = byte(^fold(sum)>>8), byte(^fold(sum))
				return b
			}
		default:
			c := configure(s.t, Config{Version: a.Version, VRID: a.VRID, Priority: a.Priority, Interval: a.Interval, Checksum: a.Checksum, Addresses: a.Addresses}, words[i:i+2])
			a.Version, a.VRID, a.Priority, a.Interval, a.Checksum, a.Addresses = c.Version, c.VRID, c.Priority, c.Interval, c.Checksum, c.Addresses
		}
	}
	if !summed.IsValid() {
		summed = p.Destination
	}
	if from := p.Source; from.BitLen() == summed.BitLen() {
		p.Payload = a.Append(nil, from, summed)
	} else {
		p.Payload = a.Append(nil, summed, summed)
	}
	if damage != nil {
		p.Payload = damage(p.Payload)
	}
	return p
}

// configure changes c as pairs of words tell.
func configure(t *testing.T, c Config, words []string) Config {
	if len(words)%2 != 0 {
		t.Fatalf("words %q are no pairs", words)
	}
	addresses := func(value string) (out []netip.Addr) {
		for _, a := range strings.Split(value, ",") {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	for i := 0; i < len(words); i += 2 {
		value := words[i+1]
		switch words[i] {
		case "name":
			c.Name = strings.TrimPrefix(value, "none")
		case "version":
			c.Version = uint8(number(t, value))
		case "vrid":
			c.VRID = uint8(number(t, value))
		case "priority":
			c.Priority = uint8(number(t, value))
		case "adjust":
			c.Adjust = number(t, value)
		case "interval":
			c.Interval = duration(t, value)
		case "preempt":
			c.Preempt = value == "on"
		case "delay":
			c.PreemptDelay = duration(t, value)
		case "password":
			c.Password = value
		case "addresses":
			c.Addresses = addresses(value)
		case "down":
			c.DownAdverts = number(t, value)
		case "checksum":
			c.Checksum = map[string]ChecksumForm{"rfc5798": PseudoHeader, "rfc9568": MessageOnly}[value]
		case "peers":
			c.Peers = addresses(value)
		case "peerttl":
			c.PeerTTL = uint8(number(t, value))
		case "announce":
			c.Announce.Repeat = number(t, value)
		case "again":
			c.Announce.Delay = duration(t, value)
		case "refresh":
			c.Announce.Refresh = duration(t, value)
		case "refreshes":
			c.Announce.RefreshRepeat = number(t, value)
		case "lower":
			c.Announce.LowerRepeat = number(t, value)
		case "loweragain":
			c.Announce.LowerDelay = duration(t, value)
		case "yield":
			c.Yield = value == "on"
		case "deaf":
			c.Deaf = value == "on"
		case "hold":
			c.Hold = value
		default:
			t.Fatalf("word %q is not known", words[i])
		}
	}
	return c
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
