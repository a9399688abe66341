package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// clientsOfAct are how many clients ask at a time: new ones each time, since they may be persistent. It is a multiple of what the
// weights of a service are together.
func clientsOfAct() int {
	if os.Getenv("XDIRECTOR_SETUPS") == "all" {
		return 12
	}
	return 6
}

// clientTimes is how often new clients can ask a service: in seven acts, and once more if the machine has cut somebody's request.
const clientTimes = 11

// clientAddress is above those of the nodes and next to the virtual ones.
func clientAddress(n int) netip.Addr {
	if n += 110; n >= 200 {
		n++
	}
	return netip.AddrFrom4([4]byte{10, 77, 0, byte(n)})
}

// ask has new clients open a connection to every service, and those of the first act another if they may stay where they were, and tells who answered. Where the turn begins is chance.
func (s *side) ask() {
	s.t.Helper()
	for _, b := range s.set.services {
		a := s.new(b.at)
		for slices.ContainsFunc(a.names, cut) && s.times[b.at] < clientTimes {
			s.t.Logf("%s: %s: answers of %s: %v: asked again", s.name, s.title, b.at, a.names)
			a = s.new(b.at)
		}
		s.see("answers at "+b.at.String(), "%s", strings.Join(turn(a.names), " "))
		if s.acts == 0 {
			s.first[b.at] = a
		}
		s.askAgain(b)
	}
}

// answers are those to the clients of one time.
type answers struct {
	time  int
	names []string
}

// cut says whether a request was neither answered nor refused: a machine that stands still for long makes directors change places.
func cut(answer string) bool {
	return slices.Contains([]string{string(lab.Reset), string(lab.Timeout), string(lab.Other)}, answer)
}

// new has new clients ask.
func (s *side) new(at netip.AddrPort) answers {
	a := answers{time: s.times[at]}
	s.times[at]++
	for n := range clientsOfAct() {
		a.names = append(a.names, s.asks(a.time, n, at))
	}
	return a
}

// askAgain has clients of the first act ask again, if persistence binds them and real servers have died. By design another one
// while the sorry server is at work: who is bound to a real server that lives stays there; keepalived has taken it out.
func (s *side) askAgain(b balanced) {
	s.t.Helper()
	alive := map[string]bool{}
	for _, at := range b.servers {
		alive[s.server(at.Addr()).Name] = s.web[at].Running()
	}
	if !b.persistent || !slices.Contains(slices.Collect(maps.Values(alive)), false) {
		return // nobody is bound yet, or to whom depends on where the turn was
	}
	first := s.first[b.at]
	var again []string
	for n, before := range first.names {
		if slices.Index(first.names, before) != n || s.sorry(b) && alive[before] {
			continue // one of each real server
		}
		now := s.asks(first.time, n, b.at)
		for try := 0; cut(now) && try < 2; try++ {
			s.t.Logf("%s: %s: answer of %s to client %d of the beginning: %s: asked again", s.name, s.title, b.at, n+1, now)
			now = s.asks(first.time, n, b.at)
		}
		again = append(again, before+", now "+now)
	}
	slices.Sort(again)
	s.see("answers at "+b.at.String()+" to clients of the beginning", "%s", strings.Join(again, "; "))
}

// asks has a client of one time ask once.
func (s *side) asks(time, n int, at netip.AddrPort) string {
	client := clientAddress(time*clientsOfAct() + n)
	r := s.lab.Client.GetFrom(client, at, patience/10)
	if cut(string(r.Outcome)) {
		s.t.Logf("%s: %s: %s asked %s: %s: %v", s.name, s.title, client, at, r.Outcome, r.Err)
		look := fmt.Sprintf("ip -4 -brief address; ip neigh; grep -i %x /proc/net/ip_vs_conn; false", client.AsSlice())
		for _, node := range slices.Concat(s.lab.Directors, s.lab.RealServers) {
			s.t.Log(node.Run("sh", "-c", look)) // the error has what was printed
		}
	}
	if r.Outcome != lab.OK {
		return string(r.Outcome)
	}
	return r.Server
}

// turn begins a list that goes round where it is the smallest.
func turn(names []string) []string {
	best := names
	for i := range names {
		if next := slices.Concat(names[i:], names[:i]); slices.Compare(next, best) < 0 {
			best = next
		}
	}
	return best
}

// serving waits until the directors have new connections for no others than the real servers that live, and lists their rules.
func (s *side) serving(directors ...int) {
	s.t.Helper()
	rules, looked := make([][]string, len(s.lab.Directors)), make([]string, len(s.lab.Directors))
	s.ok(lab.Wait(s.t.Context(), patience, func() error {
		var errs []error
		for _, i := range directors {
			for _, d := range s.dead {
				d.look(i)
			}
			look, err := s.looks(i)
			if err == nil && (look != looked[i] || rules[i] == nil) {
				looked[i] = look
				rules[i], err = s.rules(i)
			}
			if err == nil {
				err = s.judge(i, rules[i])
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}))
	for _, i := range directors {
		s.see(fmt.Sprintf("rules of director %d", i+1), "\n%s", strings.Join(s.withoutIdle(rules[i]), "\n"))
	}
}

// judge says whether a director has new connections for no others than the real servers that live.
func (s *side) judge(director int, rules []string) error {
	if n := strings.Count(strings.Join(rules, "\n"), "-A "); n != s.set.listed {
		return fmt.Errorf("director %d has %d services, want %d", director+1, n, s.set.listed)
	}
	var errs []error
	for _, b := range s.set.services {
		for _, at := range b.servers {
			gets, runs := s.gets(rules, b, at), s.web[at].Running()
			if d := s.dead[at]; d != nil {
				d.judge(director, gets)
			}
			if gets != (runs && !s.sorry(b)) {
				errs = append(errs, fmt.Errorf("director %d: real server %s of %s is at work: %v, but it runs: %v\n%s", director+1, at, b.at, gets, runs, strings.Join(rules, "\n")))
			}
		}
	}
	return errors.Join(errs...)
}

// withoutIdle leaves out what is different by design: while the sorry server is at work, the real servers that live stay with
// the weight 0, so that their connections go on. keepalived takes them out, and with that cuts the connections.
func (s *side) withoutIdle(rules []string) []string {
	return slices.DeleteFunc(slices.Clone(rules), func(r string) bool {
		return slices.ContainsFunc(s.set.services, func(b balanced) bool {
			return b.sorry.IsValid() && s.sorry(b) && strings.HasPrefix(r, fmt.Sprintf("-a -t %s ", b.at)) && strings.Contains(r, " -w 0")
		})
	})
}

// sorry says whether the sorry server has to be at work: here when any real server is dead.
func (s *side) sorry(b balanced) bool {
	return b.sorry.IsValid() && slices.ContainsFunc(b.servers, func(at netip.AddrPort) bool { return !s.web[at].Running() })
}

// gets says whether a real server gets new connections.
func (s *side) gets(rules []string, b balanced, at netip.AddrPort) bool {
	prefix := fmt.Sprintf("-a -t %s -r %s ", b.at, at)
	return slices.ContainsFunc(rules, func(r string) bool { return strings.HasPrefix(r, prefix) && !strings.Contains(r, " -w 0") })
}

// death is that of a real server, and how many checks of each director it failed: `seen` when the director was last asked, at
// least `least` and at most `most` until it was out. On a busy machine that is not one number.
type death struct {
	wire              *lab.Wire
	since             time.Time
	directors         []*lab.Node
	seen, least, most [2]int
	out               [2]bool
}

// look counts the attempts of a director to connect since the death.
func (d *death) look(director int) {
	d.seen[director] = 0
	for _, f := range d.wire.Frames(d.since) {
		if netip.AddrFrom4([4]byte(f.Data[26:30])) == d.directors[director].Address {
			d.seen[director]++
		}
	}
}

// judge is told whether the director had new connections for it after the last look.
func (d *death) judge(director int, gets bool) {
	switch {
	case gets:
		d.least[director] = d.seen[director]
	case !d.out[director]:
		d.out[director] = true
		d.look(director)
		d.most[director] = d.seen[director]
	}
}

// die stops the web servers, and tells whether each director has them out after as many failed checks as the file says.
func (s *side) die(first bool) {
	s.t.Helper()
	type one struct {
		b  balanced
		at netip.AddrPort
	}
	var dying []one
	for _, b := range s.set.services {
		for n, at := range b.servers {
			if (n == 0) == first {
				dying = append(dying, one{b, at})
			}
		}
	}
	s.dead = map[netip.AddrPort]*death{}
	for _, d := range dying {
		if s.sorry(d.b) {
			continue // it is out already
		}
		w, err := s.server(d.at.Addr()).Capture("eth0", func(b []byte) bool {
			return isTCP(b) && len(b) >= 54 && b[47]&0x12 == 0x02 && // SYN
				netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[30:34])), uint16(b[36])<<8|uint16(b[37])) == d.at
		})
		s.ok(err)
		s.dead[d.at] = &death{wire: w, directors: s.lab.Directors}
	}
	for _, d := range dying {
		if death := s.dead[d.at]; death != nil {
			death.since = time.Now()
		}
		s.web[d.at].Kill()
	}
	s.serving(0, 1)
	for _, d := range dying {
		for i := range s.lab.Directors {
			if death := s.dead[d.at]; death != nil {
				verdict, checks := "as many as the file says", d.b.retries+1
				// One may have been connected when the server died: it fails as well, and its beginning is not among those counted.
				if checks < death.least[i] || checks > death.most[i]+1 {
					verdict = fmt.Sprintf("%d to %d, and not %d", death.least[i], death.most[i], checks)
				}
				s.see(fmt.Sprintf("failed checks of %s until director %d has it out", d.at, i+1), "%s", verdict)
				s.t.Logf("%s: director %d had %s out after %d to %d failed checks", s.name, i+1, d.at, death.least[i], death.most[i])
			}
		}
	}
	s.dead = nil
}

// masters tells who is MASTER of each virtual router.
func (s *side) masters() map[uint8]int {
	s.t.Helper()
	masters := s.settled(setUp{routers: s.set.routers}, time.Now())
	s.see("MASTERs by virtual router", "%v", masters)
	return masters
}

// cut takes the power of a director, and what it held in its memory with it. It returns when that was.
func (s *side) cut(i int) time.Time {
	s.t.Helper()
	s.ok(s.lab.Directors[i].SetLink(false))
	silent := time.Now()
	s.kill(i)
	s.forget(i)
	return silent
}

// forget is what a box does that starts again.
func (s *side) forget(i int) {
	s.t.Helper()
	n := s.lab.Directors[i]
	s.ok(n.ClearIPVS())
	s.ok(s.d[i].DetachAll())
	s.ok(os.RemoveAll(filepath.Join(n.Dir, "state")))
	addresses, err := n.Addresses("eth0")
	s.ok(err)
	for _, a := range addresses {
		if p := netip.MustParsePrefix(a); p.Addr().Is4() && p.Addr() != n.Address {
			s.ok(n.DeleteAddress("eth0", a))
		}
	}
}

// outage is the time without answers from since on, as clients have it who try every 100 ms and wait for peerLimit. What is
// answered at once was on its way.
func (s *side) outage(load *lab.Load, since time.Time) (gap time.Duration) {
	s.t.Helper()
	s.ok(lab.Wait(s.t.Context(), patience, func() error {
		requests := load.Requests().Between(since.Add(500*time.Millisecond), time.Now())
		i := slices.IndexFunc(requests, func(r lab.Request) bool { return r.Outcome == lab.OK })
		if i < 0 {
			return fmt.Errorf("no answer since %v: %v", time.Since(since), requests.Outcomes())
		}
		gap = requests[i].Start.Sub(since)
		return nil
	}))
	return gap
}

// plays has everything happen to the pair that happens to directors and real servers.
func (s *side) plays() (outage time.Duration) {
	s.t.Helper()
	s.ok(s.start(0))
	s.ok(s.start(1))
	s.serving(0, 1)
	master := s.masters()[s.set.routers[0]]
	s.ask()

	if s.set.real > 0 {
		s.next("some real servers die")
		s.die(true)
		s.ask()
		s.next("the others die too")
		s.die(false)
		s.ask()
		s.next("they come back")
		for _, b := range s.set.services {
			for _, at := range b.servers {
				s.serve(at)
			}
		}
		s.serving(0, 1)
		s.ask()
	}

	s.next("the power is cut")
	load, err := s.lab.Client.StartLoad(s.set.services[0].at, 10, peerLimit)
	s.ok(err)
	s.answered(load, time.Now(), 5)
	outage = s.outage(load, s.cut(master))
	load.Stop()
	s.masters()
	s.serving(1 - master)
	s.ask()

	if os.Getenv("XDIRECTOR_SETUPS") != "all" {
		return outage
	}

	s.next("it comes back")
	s.ok(s.lab.Directors[master].SetLink(true))
	s.ok(s.start(master))
	s.serving(0, 1)
	again := s.masters()[s.set.routers[0]]
	s.ask()

	s.next("it is stopped")
	load, err = s.lab.Client.StartLoad(s.set.services[0].at, 10, peerLimit)
	s.ok(err)
	s.answered(load, time.Now(), 5)
	stopped := time.Now()
	s.ok(s.stop(again))
	gap := s.outage(load, stopped)
	load.Stop()
	s.masters()
	left, err := s.lab.Directors[again].IPVSRules()
	s.ok(err)
	s.see("rules of the one that was stopped", "%v", left)
	s.ask()
	s.t.Logf("%s: without answers for %v after the power was cut, %v after the stop; all took %v", s.name, outage, gap, time.Since(s.began))
	return outage
}
