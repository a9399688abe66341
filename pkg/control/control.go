// Package control lets an operator's commands talk to the running director: HTTP and JSON over a unix socket, both
// ends. GET /v1/status answers with a status.Status, POST /v1/reload reads the configuration file again, POST
// /v1/failover and /v1/maintenance are an operator's commands to the elections, those to /v1/drain and /v1/weight are about real
// servers, and DELETE takes them back. Whoever may open the socket may do everything, so the mode of the socket file is the access control.
package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/xdirector/xdirector/pkg/status"
)

// Daemon is the running director as its clients see it. All methods are called from several goroutines at once.
type Daemon interface {
	// Status returns the latest picture; nil while there is none yet.
	Status() *status.Status
	// Reload reads the configuration file again and applies it. The error of a refused file is meant for the
	// operator, and may have several lines; the old configuration stays in use then.
	Reload(ctx context.Context) error
	Operator
	Explainer
}

// endpoints is what every wrong request is told.
const endpoints = "there are GET /v1/status, POST /v1/reload, POST /v1/explain, POST /v1/failover, DELETE /v1/failover/INSTANCE, POST and DELETE /v1/maintenance, " +
	"POST /v1/drain, POST /v1/weight, DELETE /v1/drain/SERVICE/REAL_SERVER and /v1/weight/SERVICE/REAL_SERVER"

// methods are those of each path.
var methods = []struct{ path, allowed string }{
	{"/v1/status", "GET, HEAD"},
	{"/v1/reload", "POST"},
	{"/v1/explain", "POST"},
	{"/v1/failover/", "DELETE"},
	{"/v1/failover", "POST"},
	{"/v1/maintenance", "POST, DELETE"},
	{"/v1/drain/", "DELETE"},
	{"/v1/drain", "POST"},
	{"/v1/weight/", "DELETE"},
	{"/v1/weight", "POST"},
}

// limits bound what one client, or all of them together, can take from the director.
type limits struct {
	connections int           // more of them wait in the kernel until one ends
	read        time.Duration // for a whole request, and for an idle connection
	write       time.Duration // from the request to the end of the answer: covers a reload
	stop        time.Duration // for requests under way when the director stops
	header      int           // bytes
	body        int64         // bytes
}

func defaults() limits {
	return limits{connections: 64, read: 5 * time.Second, write: time.Minute, stop: 2 * time.Second, header: 8 << 10, body: 64 << 10}
}

// Serve answers requests on l until ctx ends, then closes l. It returns nil after ctx has ended, else the error that
// made further answers impossible.
func Serve(ctx context.Context, l net.Listener, d Daemon, log *slog.Logger) error {
	return serve(ctx, l, d, log, defaults())
}

func serve(ctx context.Context, l net.Listener, d Daemon, log *slog.Logger, lim limits) error {
	server := &http.Server{
		Handler:           handler(d, log, lim),
		ReadTimeout:       lim.read,
		ReadHeaderTimeout: lim.read,
		IdleTimeout:       lim.read,
		WriteTimeout:      lim.write,
		MaxHeaderBytes:    lim.header,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
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
	err := server.Serve(netutil.LimitListener(l, lim.connections))
	close(ended)
	<-stopped
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve control socket %s: %w", l.Addr(), err)
}

func handler(d Daemon, log *slog.Logger, lim limits) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		s := d.Status()
		if s == nil {
			answer(w, http.StatusServiceUnavailable, failure{"no status yet: the director is starting, ask again in a second"})
			return
		}
		answer(w, http.StatusOK, s)
	})
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) {
		// The body has no meaning, but it must be read for a hang-up of the client to be noticed.
		if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, lim.body)); err != nil {
			answer(w, http.StatusRequestEntityTooLarge, failure{"read request: " + err.Error() + "; a reload needs no body"})
			return
		}
		log.Info("reload asked for on the control socket")
		if err := d.Reload(r.Context()); err != nil {
			answer(w, http.StatusUnprocessableEntity, failure{err.Error()})
			return
		}
		answer(w, http.StatusOK, struct{}{})
	})
	operate(mux, d, lim)
	explainPackets(mux, d)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		code := http.StatusNotFound
		for _, m := range methods {
			if r.URL.Path == m.path || strings.HasSuffix(m.path, "/") && strings.HasPrefix(r.URL.Path, m.path) {
				code = http.StatusMethodNotAllowed
				w.Header().Set("Allow", m.allowed)
				break
			}
		}
		answer(w, code, failure{fmt.Sprintf("no %s %s here: %s", r.Method, r.URL.Path, endpoints)})
	})
	return mux
}

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

// answer writes v as JSON. A client that went away is nobody's concern, so that the error of the write is dropped.
func answer(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the status can't be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(body, '\n'))
}
