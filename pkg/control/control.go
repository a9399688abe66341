// Package control lets an operator's commands talk to the running director: HTTP and JSON over a unix socket, both
// ends. What the socket offers is the list of routes, and openapi.json, which a test makes of that list. Whoever may
// open the socket may do everything, so the mode of the socket file is the access control.
package control

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
)

// Daemon is the running director as its clients see it. All methods are called from several goroutines at once.
type Daemon interface {
	// Status returns the latest picture; nil while there is none yet.
	Status() *status.Status
	// Events returns the feed of what changes.
	Events() *status.Feed
	Reloader
	Operator
	Explainer
}

//go:embed openapi.json
var openapi []byte

// limits bound what one client, or all of them together, can take from the director.
type limits struct {
	connections int           // besides streams; see crowd
	streams     int           // of events; one more is refused
	read        time.Duration // for a whole request
	patience    time.Duration // with a client that is waited for while there are too many
	work        time.Duration // from the request to the beginning of the answer: covers a reload
	write       time.Duration // for 64 KB of an answer, and for what a stream sends at once
	heartbeat   time.Duration // between signs of life in a stream without events
	stop        time.Duration // for requests under way when the director stops
	header      int           // bytes
	body        int64         // bytes
}

func defaults() limits {
	return limits{
		connections: 64, streams: 32, read: 5 * time.Second, patience: 250 * time.Millisecond, work: time.Minute, write: 10 * time.Second, heartbeat: heartbeat,
		stop: 2 * time.Second, header: 8 << 10, body: 64 << 10,
	}
}

// Serve answers requests on l until ctx ends, then closes l. It returns nil after ctx has ended, else the error that
// made further answers impossible.
func Serve(ctx context.Context, l net.Listener, d Daemon, log *slog.Logger) error {
	return serve(ctx, l, d, log, defaults())
}

func serve(ctx context.Context, l net.Listener, d Daemon, log *slog.Logger, lim limits) error {
	server := &http.Server{
		Handler:           newAPI(d, log, lim, ctx.Done()).handler(),
		ReadTimeout:       lim.read,
		ReadHeaderTimeout: lim.read,
		WriteTimeout:      lim.work,
		MaxHeaderBytes:    lim.header,
		ConnContext:       withGuest,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	server.SetKeepAlivesEnabled(false) // a connection that idles would keep others waiting
	stopped := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-ended:
		}
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), lim.stop)
		defer cancel()
		if server.Shutdown(limited) != nil {
			server.Close() // a client that doesn't read must not hold up the handover
		}
	}()
	err := server.Serve(newCrowd(l, lim.connections+lim.streams, lim.patience))
	close(ended)
	<-stopped
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve control socket %s: %w", l.Addr(), err)
}

// api answers requests.
type api struct {
	Daemon
	log     *slog.Logger
	lim     limits
	stop    <-chan struct{} // closed when the director stops
	streams chan struct{}   // one value for each stream of events
}

func newAPI(d Daemon, log *slog.Logger, lim limits, stop <-chan struct{}) *api {
	return &api{d, log, lim, stop, make(chan struct{}, lim.streams)}
}

// routes is everything that the socket offers.
func (a *api) routes() []route {
	list := []route{
		exchange("GET", "/v1/status", "The picture of the whole.", a.getStatus).with(nameParameter()),
		{method: "GET", path: "/v1/events", summary: "A stream of what changes, as server-sent events.", query: eventParameters(), answer: typeOf[status.Event](),
			media: "text/event-stream", handle: a.streamEvents},
		exchange("POST", "/v1/reload", "Read the configuration file again. One that is refused changes nothing; the error may have several lines.", a.postReload).with(trialParameter()),
		exchange("POST", "/v1/plan", "What a reload would change, and what it would interrupt. Changes nothing.", a.postPlan).upTo(planLimit),
	}
	list = append(list, operatorRoutes(a.Daemon)...)
	list = append(list, serverRoutes(a.Daemon)...)
	return append(list,
		exchange("POST", "/v1/explain", "What becomes of a packet that a client would send, or of captured frames, and why. Changes nothing.", explain(a.Daemon)).upTo(2*FramesMax),
		route{method: "GET", path: "/v1/openapi.json", summary: "This document.", media: "application/json", handle: func(w http.ResponseWriter, r *http.Request) {
			a.write(w, r, http.StatusOK, openapi)
		}})
}

func nameParameter() parameter {
	return parameter{"name", "Only instances and services of that name (* and ? as in file names), or with that virtual address or real server. May be given several times.", typeOf[string]()}
}

func (a *api) getStatus(r *http.Request, _ nothing) (*status.Status, error) {
	query, err := readQuery(r, nameParameter())
	if err != nil {
		return nil, err
	}
	s := a.Status()
	if s == nil {
		return nil, starting{}
	}
	if len(query["name"]) == 0 {
		return s, nil
	}
	s, missing := s.Only(query["name"])
	if missing != "" {
		return nil, fmt.Errorf("no instance, service or address %q %w: xdirector status shows what is", missing, ErrUnknown)
	}
	return s, nil
}
