// Package metrics shows the director's picture of itself to Prometheus and to load balancers' health probes, over
// HTTP. Reading it costs the director nothing: it only ever looks at the latest published picture.
package metrics

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/net/netutil"

	"github.com/xdirector/xdirector/pkg/status"
)

const (
	// again is the time between two attempts to get a taken port.
	again = 10 * time.Second

	connections = 64 // more of them wait in the kernel
	scrapes     = 4  // at once; more of them get 503
	timeout     = 10 * time.Second
	headerLimit = 16 << 10 // bytes
)

// Handler serves /metrics and /healthz, and leaves all other paths to page. latest returns the latest picture, nil
// before there is one (then /metrics and /healthz give 503), and is called from several goroutines at once. /healthz
// gives 503 with the reason as well if the picture says that the director is not healthy.
func Handler(latest func() *status.Status, page http.Handler) http.Handler {
	process := prometheus.NewRegistry()
	process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scrape := promhttp.HandlerFor(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		others, err := process.Gather()
		return append(newPage(latest()).gather(), others...), err
	}), promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // one metric that can't be written must not cost the others
		MaxRequestsInFlight: scrapes,
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if latest() == nil {
			http.Error(w, starting, http.StatusServiceUnavailable)
			return
		}
		scrape.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := sick(latest()); reason != "" {
			http.Error(w, reason, http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	mux.Handle("/", page)
	return ownNames(mux)
}

const starting = "the director is starting"

// sick says why the director is not healthy; empty: it is.
func sick(s *status.Status) string {
	if s == nil {
		return starting
	}
	if !s.Healthy && s.Unhealthy == "" {
		return "not healthy"
	}
	if !s.Healthy {
		return s.Unhealthy
	}
	return ""
}

// Serve answers requests at the address listen (host:port) with h until ctx ends. If the port can't be had it logs one
// error and tries again every 10 s: a director without metrics still forwards.
func Serve(ctx context.Context, listen string, h http.Handler, log *slog.Logger) error {
	return serve(ctx, listen, h, log, again)
}

func serve(ctx context.Context, listen string, h http.Handler, log *slog.Logger, again time.Duration) error {
	told := ""
	for {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", listen)
		if err == nil {
			told = ""
			log.Info("metrics are served", "listen", l.Addr().String())
			err = serveOn(ctx, l, h, log)
		}
		if ctx.Err() != nil {
			return nil
		}
		if told != err.Error() { // once, not every 10 s for weeks
			told = err.Error()
			log.Error("metrics are not served", "listen", listen, "error", err, "retry", again,
				"cure", "stop the program that has the port (ss -ltnp names it), or change metrics.listen")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
	}
}

// serveOn serves until ctx ends or an error makes it impossible; the error is never nil.
func serveOn(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadTimeout:       timeout,
		ReadHeaderTimeout: timeout,
		WriteTimeout:      2 * timeout,
		IdleTimeout:       3 * timeout, // longer than a usual scrape interval
		MaxHeaderBytes:    headerLimit,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	// Nobody waits for the end of a scrape when the director stops.
	defer context.AfterFunc(ctx, func() { server.Close() })()
	return fmt.Errorf("serve metrics: %w", server.Serve(netutil.LimitListener(l, connections)))
}
