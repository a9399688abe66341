// Package web is the status page: the picture of the whole for a browser, as it is and as it changes. It only reads: what
// it shows is the latest published picture, and no viewer, however slow or many, holds up anybody else.
package web

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"html/template"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

const (
	beat        = time.Second      // from one live picture to the next, if it isn't too much work
	share       = 4                // times as long as a live picture took nothing is done for the next
	longestBeat = 5 * time.Second  // and no more than that, however busy the box is: page.js waits for ten
	writeLimit  = 10 * time.Second // for one message; who takes longer to read it is cut off
	mostLive    = 32               // live viewers at once; more of them get 503
	mostPages   = 1                // pages that are made at once; more of them wait
	longestQ    = 100              // bytes of a search
)

//go:embed static
var files embed.FS

// policy lets the page load its own style, script and stream, and nothing else; whatever text it shows can't run.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Page is the status page. It is an http.Handler; Run must run for it to be live.
type Page struct {
	latest func() *status.Status
	events *status.Feed
	mux    *http.ServeMux
	html   *template.Template
	making chan struct{} // holds a value for each page that is being made
	limit  time.Duration // writeLimit

	mu      sync.Mutex
	history history
	beats   uint64
	next    chan struct{}    // closed at the next beat
	looks   map[string]*look // by search: what somebody looks at
	viewers int
}

// look is one selection of the picture, made once a beat for all who look at it.
type look struct {
	viewers  int
	sections []section
}

// section is a part of the page in JSON.
type section struct {
	name    string
	data    []byte
	changed uint64 // the beat of its last change
}

// New makes the page. latest returns the latest picture, nil before there is one (then the page is 503); it is called from
// several goroutines at once.
func New(latest func() *status.Status, events *status.Feed) *Page {
	p := &Page{
		latest: latest, events: events, mux: http.NewServeMux(),
		html:   template.Must(template.ParseFS(files, "static/page.html")),
		making: make(chan struct{}, mostPages),
		limit:  writeLimit,
		next:   make(chan struct{}), looks: map[string]*look{},
	}
	p.mux.HandleFunc("/{$}", p.page)
	p.mux.HandleFunc("/live", p.live)
	for name, kind := range map[string]string{"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"} {
		p.mux.HandleFunc("/static/"+name, static(name, kind))
	}
	return p
}

// ServeHTTP answers GET and HEAD for the page, what it loads, and its stream.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the status page can only be read", http.StatusMethodNotAllowed)
		return
	}
	p.mux.ServeHTTP(w, r)
}

// static serves one of the files that the page loads. No path of a request ever becomes a path of a file.
func static(name, kind string) http.HandlerFunc {
	text, err := files.ReadFile(path.Join("static", name))
	if err != nil {
		panic(err) // it is in the binary, or that was built wrongly
	}
	hash := fnv.New64a()
	hash.Write(text)
	tag := fmt.Sprintf(`"%x"`, hash.Sum64())
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind+"; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache") // ask again: an upgrade may have changed it
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	}
}

// search is what the viewer looks for, in lower case.
func search(r *http.Request) (string, error) {
	q := strings.ToLower(strings.TrimSpace(r.URL.Query().Get("q")))
	if len(q) > longestQ {
		return "", fmt.Errorf("the search is longer than %d bytes", longestQ)
	}
	return plain(q), nil
}

func (p *Page) page(w http.ResponseWriter, r *http.Request) {
	q, err := search(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case p.making <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	text, err := p.render(q)
	<-p.making
	if err != nil {
		unavailable(w, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(text)
}

func (p *Page) render(q string) ([]byte, error) {
	s := p.latest()
	if s == nil {
		return nil, errStarting
	}
	p.mu.Lock()
	v := see(s, p.events.Recent(0), &p.history, q)
	p.mu.Unlock()
	var text bytes.Buffer
	if err := p.html.Execute(&text, v); err != nil {
		return nil, fmt.Errorf("make the page: %w", err)
	}
	return text.Bytes(), nil
}

func unavailable(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "5")
	http.Error(w, why, http.StatusServiceUnavailable)
}

// Run makes the page live until ctx ends: it keeps two minutes of rates, so that a page that is opened has them, and tells
// those who look what changes.
func (p *Page) Run(ctx context.Context) error {
	wait := beat
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		began := time.Now()
		p.turn()
		took := time.Since(began)
		wait = min(longestBeat, max(beat-took, share*took)) // 32 searches in 10,000 services are no more than a fifth of a CPU
	}
}

// turn makes the next live picture.
func (p *Page) turn() {
	s := p.latest()
	if s == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beats++
	p.history.sample(s)
	if len(p.looks) > 0 {
		recent := p.events.Recent(0)
		for q, l := range p.looks {
			l.show(see(s, recent, &p.history, q), p.beats)
		}
	}
	close(p.next)
	p.next = make(chan struct{})
}

// show takes over a new view, and notes which sections differ from the last.
func (l *look) show(v view, beat uint64) {
	if l.sections == nil {
		l.sections = make([]section, len(v.parts()))
	}
	for i, part := range v.parts() {
		data, err := json.Marshal(part.value)
		if err != nil {
			continue // of strings and numbers; the viewers keep what they have
		}
		if old := l.sections[i]; !bytes.Equal(old.data, data) {
			l.sections[i] = section{name: part.name, data: data, changed: beat}
		}
	}
}
