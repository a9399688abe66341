package web

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

var (
	errStarting = errors.New("the director is starting")
	errTooMany  = fmt.Errorf("%d viewers look at this page live already; without being live it works as ever", mostLive)
)

// join begins to look at what q selects. leave must be called if there is no error.
func (p *Page) join(q string) (*look, error) {
	s := p.latest()
	if s == nil {
		return nil, errStarting
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.viewers >= mostLive {
		return nil, errTooMany
	}
	p.viewers++
	l := p.looks[q]
	if l == nil {
		l = &look{}
		l.show(see(s, p.events.Recent(0), &p.history, q), p.beats)
		p.looks[q] = l
	}
	l.viewers++
	return l, nil
}

func (p *Page) leave(q string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.viewers--
	if p.looks[q].viewers--; p.looks[q].viewers == 0 {
		delete(p.looks, q)
	}
}

// now returns the sections of a look, and what is closed when there are newer ones.
func (p *Page) now(l *look) ([]section, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(l.sections), p.next
}

// live is the stream: first all sections, then those that have changed, once a second.
func (p *Page) live(w http.ResponseWriter, r *http.Request) {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		http.Error(w, "another site's page may not take the place of a viewer", http.StatusForbidden)
		return
	}
	q, err := search(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	l, err := p.join(q)
	if err != nil {
		unavailable(w, err.Error())
		return
	}
	defer p.leave(q)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	// The server's own limits are for an answer that ends; here they hold for each message.
	stream := http.NewResponseController(w)
	if err := stream.SetReadDeadline(time.Time{}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, "retry: 1000\n\n") // ms until a browser that lost us asks again
	sent := make([]uint64, len(l.sections))
	for first := true; ; first = false {
		sections, next := p.now(l)
		if err := stream.SetWriteDeadline(time.Now().Add(p.limit)); err != nil {
			return
		}
		for i, s := range sections {
			if !first && s.changed == sent[i] {
				continue
			}
			sent[i] = s.changed
			if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", s.name, s.data); err != nil {
				return
			}
		}
		if err := stream.Flush(); err != nil {
			return
		}
		select {
		case <-next:
		case <-r.Context().Done():
			return
		}
	}
}
