package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// errCost says that an act cost more than promised; what it was is on the screen.
var errCost = errors.New("more failed than promised")

// maxOutage is promised for the pulled cable: d2, whose priority is 100, has to notice by itself.
var maxOutage = lab.MaxOutage(interval, 100)

// act is one thing done to the directors, and what the client saw of it.
type act struct {
	name       string
	from, to   time.Time
	garp       time.Time // first gratuitous ARP of the new MASTER; zero if nobody had to take over
	cut        bool      // the old MASTER could not hand over
	lastAdvert time.Time // of the old MASTER
}

// judge says what an act cost that it may not cost.
func (a *act) judge(requests lab.Requests) error {
	var err error
	if a.cut {
		outage := lab.Outage(requests, a.lastAdvert)
		if outage > lab.Slack*maxOutage {
			err = fmt.Errorf("the outage took %v, more than %v", outage, maxOutage)
		}
		requests = requests.Between(a.lastAdvert.Add(outage), a.to)
	}
	if err := errors.Join(err, lab.CheckHandover(requests, a.garp)); err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	return nil
}

// result prints what the acts cost and returns an error if that was more than promised.
func (s *stage) result(all lab.Requests) error {
	s.acts[len(s.acts)-1].to = time.Now()
	failed := make(map[string]int)
	var outage time.Duration
	var problems []error
	s.screen.say("")
	s.screen.say("%d requests, %d answered: %s.", len(all), all.Outcomes()[lab.OK], shares(all))
	for _, a := range s.acts {
		requests := all.Between(a.from, a.to)
		failed[a.name] += len(requests.Failed())
		if a.cut {
			outage = lab.Outage(requests, a.lastAdvert)
			s.screen.say("Link down: %d requests failed in the %d ms after the last advert; %d ms are promised.",
				len(requests.Failed()), outage.Milliseconds(), maxOutage.Milliseconds())
		}
		if err := a.judge(requests); err != nil {
			problems = append(problems, err)
		}
	}
	for _, p := range problems {
		s.screen.say("Not as promised: %v", p)
	}
	s.screen.say("demo: clean stop %d failed, failback %d failed, agent killed %d failed, link down %d ms",
		failed["clean stop"], failed["failback"], failed["agent killed"], outage.Milliseconds())
	if len(problems) > 0 {
		return errCost
	}
	return nil
}
