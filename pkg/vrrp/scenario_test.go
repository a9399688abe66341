package vrrp

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
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
// The machine is ticked at its deadlines, except while it sleeps ("1s sleep until 6s"), until the time of the last
// line. Adverts have our own settings unless the line says otherwise. Accepted adverts are not shown unless
// the scenario says "show accepted".
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("find testdata/*.txt: %d files, error %v", len(files), err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range strings.Split("\n"+string(content), "\nscenario ")[1:] {
			name, body, _ := strings.Cut(text, "\n")
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+name, func(t *testing.T) { play(t, body) })
		}
	}
}

// stage is one scenario while it is played.
type stage struct {
	t      *testing.T
	cfg    Config
	m      *Machine
	asleep Time // no ticks before
	show   bool // accepted adverts too
	got    []string
}

func play(t *testing.T, body string) {
	s := &stage{t: t, cfg: Config{
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
		case words[0] == "show":
			s.show = true
			continue
		case s.m == nil:
			s.m = New(s.cfg)
		}
		now := duration(t, words[0])
		if now < end {
			t.Fatalf("line %q is older than the one before", line)
		}
		end = now
		if words[1] == "->" {
			want = append(want, now.String()+" "+strings.Join(words[1:], " "))
			continue
		}
		s.tick(now - 1) // a packet that arrives at the deadline is read first
		s.event(now, words[1:])
	}
	s.tick(end)
	if diff := cmp.Diff(want, s.got); diff != "" {
		t.Errorf("what the machine does is not as written (-written +done):\n%s", diff)
	}
}

// tick plays all deadlines up to and including now.
func (s *stage) tick(now Time) {
	for {
		deadline, ok := s.m.Deadline()
		deadline = max(deadline, s.asleep)
		if !ok || deadline > now {
			return
		}
		s.step(deadline, Tick{})
		if next, ok := s.m.Deadline(); ok && next <= deadline {
			s.t.Fatalf("at %s: the deadline after a tick is %s, the loop would spin", deadline, next)
		}
	}
}

func (s *stage) event(now Time, words []string) {
	value := func(i int) string {
		if i >= len(words) {
			s.t.Fatalf("line %q has too few words", strings.Join(words, " "))
		}
		return words[i]
	}
	switch words[0] {
	case "start", "resume":
		s.step(now, Start{Source: netip.MustParseAddr(value(2)), Resume: words[0] == "resume"})
	case "source":
		s.step(now, SourceChange{Source: netip.MustParseAddr(value(1))})
	case "fail":
		s.step(now, Fail{Reason: strings.Join(words[1:], " ")})
	case "stop":
		s.step(now, Stop{})
	case "tick":
		s.step(now, Tick{})
	case "configure":
		s.step(now, Configure{Config: configure(s.t, s.m.cfg, words[1:])})
	case "sleep":
		s.asleep = duration(s.t, value(2))
	case "advert":
		s.step(now, s.packet(words[1:]))
	case "is":
		master, priority := s.m.Master()
		got := fmt.Sprintf("is %s master %s priority %d", s.m.State(), master, priority)
		if !master.IsValid() {
			got = fmt.Sprintf("is %s master none", s.m.State())
		}
		if want := strings.Join(words, " "); got != want {
			s.t.Errorf("at %s the machine %s, not: %s", now, got, want)
		}
	default:
		s.t.Fatalf("event %q is not known", words[0])
	}
}

// step gives an event to the machine and writes down what it does.
func (s *stage) step(now Time, event Event) {
	before := *s.m
	actions := s.m.Step(now, event)
	_, packet := event.(Packet)
	if packet && !accepted(actions) && !reflect.DeepEqual(before, *s.m) {
		s.t.Errorf("at %s: a refused packet changed the machine from\n%+v to\n%+v", now, before, *s.m)
	}
	for _, action := range actions {
		if text := s.describe(action); text != "" {
			s.got = append(s.got, now.String()+" -> "+text)
		}
	}
}

func accepted(actions []Action) bool {
	for _, action := range actions {
		if _, ok := action.(Accepted); ok {
			return true
		}
	}
	return false
}

func (s *stage) describe(action Action) string {
	switch a := action.(type) {
	case Send:
		text := fmt.Sprintf("send priority %d", a.Advert.Priority)
		if a.Advert.Interval != s.cfg.Interval {
			text += " interval " + a.Advert.Interval.String()
		}
		if !reflect.DeepEqual(a.Advert.Addresses, s.cfg.Addresses) {
			text += " addresses " + strings.ReplaceAll(list(a.Advert.Addresses), " ", "")
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
	case Stayed:
		return "stays: " + a.Reason
	case Changed:
		return fmt.Sprintf("%s: %s", a.To, a.Reason)
	case Accepted:
		if s.show {
			return fmt.Sprintf("accepted %s priority %d", a.Source, a.Priority)
		}
		return ""
	case Refused:
		return fmt.Sprintf("refused %s: %s", a.Reason, a.Text)
	case Mismatch:
		if a.Kind == "" {
			return ""
		}
		return fmt.Sprintf("mismatch %s: %s", a.Kind, a.Text)
	case Stopped:
		return "stopped"
	}
	s.t.Fatalf("action %T is not known", action)
	return ""
}

// packet builds an advert like our own with the differences that the words tell.
func (s *stage) packet(words []string) Packet {
	a := s.m.advert(s.m.cfg.Priority)
	p := Packet{Destination: group, TTL: 255}
	var damage func([]byte) []byte
	for i := 0; i+1 < len(words); i += 2 {
		value := words[i+1]
		switch words[i] {
		case "from":
			p.Source = netip.MustParseAddr(value)
		case "to":
			p.Destination = netip.MustParseAddr(value)
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
		case "checksum": // wrong
			damage = func(b []byte) []byte { b[7] ^= 1; return b }
		case "header": // replaces the first bytes, in hex, and puts the checksum right
			damage = func(b []byte) []byte {
				copy(b, unhex(s.t, value))
				b[6], b[7] = 0, 0
				sum := ^fold(add(b))
				b[6], b[7] = byte(sum>>8), byte(sum)
				return b
			}
		default:
			c := configure(s.t, Config{Version: a.Version, VRID: a.VRID, Priority: a.Priority, Interval: a.Interval, Addresses: a.Addresses}, words[i:i+2])
			a.Version, a.VRID, a.Priority, a.Interval, a.Addresses = c.Version, c.VRID, c.Priority, c.Interval, c.Addresses
		}
	}
	p.Payload = a.Append(nil, netip.MustParseAddr("10.9.0.9"), p.Destination)
	if p.Source.Is4() {
		p.Payload = a.Append(nil, p.Source, p.Destination)
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
	for i := 0; i < len(words); i += 2 {
		value := words[i+1]
		switch words[i] {
		case "version":
			c.Version = uint8(number(t, value))
		case "vrid":
			c.VRID = uint8(number(t, value))
		case "priority":
			c.Priority = uint8(number(t, value))
		case "interval":
			c.Interval = duration(t, value)
		case "preempt":
			c.Preempt = value == "on"
		case "delay":
			c.PreemptDelay = duration(t, value)
		case "password":
			c.Password = value
		case "addresses":
			c.Addresses = nil
			for _, a := range strings.Split(value, ",") {
				c.Addresses = append(c.Addresses, netip.MustParseAddr(a))
			}
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
