package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// heartbeat is how often a stream without events shows that it is alive.
const heartbeat = 15 * time.Second

// lastEventID is the header with which a client goes on where its last stream ended; it comes before `after`.
const lastEventID = "Last-Event-ID"

// busy is the answer when there are as many streams as may be.
type busy struct{ most int }

func (b busy) Error() string {
	return fmt.Sprintf("%d streams of events are open, which is the most: end one (xdirector events, status page, scripts), and ask again", b.most)
}

func eventParameters() []parameter {
	return []parameter{
		{"kinds", "Only these kinds, separated by commas: " + strings.Join(status.Kinds, ", ") + ".", typeOf[string]()},
		{"instance", "Only what is about this instance. May be given several times, also beside service: then what is about one of them.", typeOf[string]()},
		{"service", "Only what is about this service, or about one of its real servers. May be given several times.", typeOf[string]()},
		{"after", "First the remembered events after the one with this id; the header " + lastEventID + " says the same. Events of the kinds check and flows are not remembered.", typeOf[uint64]()},
		{"history", "First so many of the newest remembered events, of at most 1,000.", typeOf[uint64]()},
		{"follow", "false: end after the remembered events.", typeOf[bool]()},
	}
}

// choice is which events a reader wants.
type choice struct {
	kinds, instances, services []string // none: all
	after                      uint64
	history                    int
	follow                     bool
}

func (a *api) readChoice(r *http.Request) (c choice, err error) {
	query, err := readQuery(r, eventParameters()...)
	if err != nil {
		return c, err
	}
	for _, kinds := range query["kinds"] {
		for kind := range strings.SplitSeq(kinds, ",") {
			if kind = strings.TrimSpace(kind); !slices.Contains(status.Kinds, kind) {
				return c, wrong{fmt.Errorf("unknown kind of events %q: there are %s", kind, strings.Join(status.Kinds, ", "))}
			}
			c.kinds = append(c.kinds, kind)
		}
	}
	c.instances, c.services = query["instance"], query["service"]
	if err := a.known(c); err != nil {
		return c, err
	}
	after := query.Get("after")
	if last := r.Header.Get(lastEventID); last != "" {
		after = last
	}
	if after != "" {
		if c.after, err = strconv.ParseUint(after, 10, 64); err != nil {
			return c, wrong{fmt.Errorf("read request: after %q is no id of an event: it is a number", after)}
		}
		c.history = -1
	}
	if text := query.Get("history"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return c, wrong{fmt.Errorf("read request: history %q is no number of events", text)}
		}
		c.history = int(n)
	}
	c.follow = true
	if text := query.Get("follow"); text != "" {
		if c.follow, err = strconv.ParseBool(text); err != nil {
			return c, wrong{fmt.Errorf("read request: follow %q is neither true nor false", text)}
		}
	}
	return c, nil
}

// known refuses names that nothing has: a stream about them would be silent for ever.
func (a *api) known(c choice) error {
	s := a.Status()
	if s == nil {
		return nil
	}
	for _, name := range c.instances {
		if !slices.ContainsFunc(s.Instances, func(i status.Instance) bool { return i.Name == name }) {
			return fmt.Errorf("no instance %q %w: xdirector status shows what is", name, ErrUnknown)
		}
	}
	for _, name := range c.services {
		if !slices.ContainsFunc(s.Services, func(v status.Service) bool { return v.Name == name }) {
			return fmt.Errorf("no service %q %w: xdirector status shows what is", name, ErrUnknown)
		}
	}
	return nil
}

func (c choice) wants(e status.Event) bool {
	if len(c.kinds) > 0 && !slices.Contains(c.kinds, e.Kind) {
		return false
	}
	return len(c.instances)+len(c.services) == 0 || slices.Contains(c.instances, e.Instance) || slices.Contains(c.services, e.Service)
}

// past are the wanted ones of the remembered events.
func (c choice) past(remembered []status.Event) []status.Event {
	list := slices.DeleteFunc(remembered, func(e status.Event) bool { return !c.wants(e) })
	if c.history >= 0 {
		list = list[max(0, len(list)-c.history):]
	}
	return list
}

// streamEvents answers GET /v1/events until the client hangs up or the director stops.
func (a *api) streamEvents(w http.ResponseWriter, r *http.Request) {
	c, err := a.readChoice(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	s := stream{w: w, choice: c, lim: a.lim}
	working(r.Context())
	if !c.follow || r.Method == http.MethodHead {
		answering(r.Context())
		s.begin()
		s.add(c.past(a.Events().Recent(c.after))...)
		s.send()
		return
	}
	select {
	case a.streams <- struct{}{}:
		defer func() { <-a.streams }()
	default:
		a.fail(w, r, busy{a.lim.streams})
		return
	}
	l, remembered := a.Events().Listen(c.after)
	defer l.Close()
	s.begin()
	s.add(c.past(remembered)...)
	if s.send() == nil {
		s.follow(l, r.Context().Done(), a.stop)
	}
}

// stream writes events to one client.
type stream struct {
	w   http.ResponseWriter
	lim limits
	choice
	out bytes.Buffer
}

func (s *stream) begin() {
	s.w.Header().Set("Content-Type", "text/event-stream")
	s.w.Header().Set("Cache-Control", "no-store")
	s.out.WriteString(": events of xdirector\n\n")
}

func (s *stream) add(events ...status.Event) {
	for _, e := range events {
		if !s.wants(e) && e.Kind != status.KindLost {
			continue
		}
		text, err := json.Marshal(e)
		if err != nil {
			continue // an Event has no value that JSON can't say, but for a year after 9999
		}
		if e.ID != 0 {
			fmt.Fprintf(&s.out, "id: %d\n", e.ID)
		}
		fmt.Fprintf(&s.out, "event: %s\ndata: %s\n\n", e.Kind, text)
	}
}

// send writes what was added. An error means that the client is gone, or has taken nothing for too long.
func (s *stream) send() error {
	if s.out.Len() == 0 {
		return nil
	}
	c := http.NewResponseController(s.w)
	c.SetWriteDeadline(time.Now().Add(s.lim.write))
	_, err := s.out.WriteTo(s.w)
	if err == nil {
		err = c.Flush()
	}
	s.out.Reset()
	return err
}

func (s *stream) follow(l *status.Listener, gone, stop <-chan struct{}) {
	alive := time.NewTicker(s.lim.heartbeat)
	defer alive.Stop()
	for ending := false; !ending; {
		select {
		case e := <-l.C:
			s.add(e)
		case <-alive.C:
			s.out.WriteString(":\n\n")
		case <-gone:
			return
		case <-stop:
			ending = true
		}
		for range len(l.C) {
			s.add(<-l.C)
		}
		if n := l.Lost(); n > 0 {
			s.add(status.LostEvents(n, time.Now()))
		}
		if s.send() != nil {
			return
		}
	}
}
