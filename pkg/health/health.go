// Package health runs the checks of real servers on time and tells which of them are up. Checks run in every VRRP
// state; a result is up or down with a reason.
package health

import (
	"net/netip"
	"time"
)

// Kind is the type of a check.
type Kind string

// The kinds of checks.
const (
	ICMP  Kind = "icmp"
	TCP   Kind = "tcp"
	HTTP  Kind = "http"
	HTTPS Kind = "https"
)

// StatusRange is an inclusive range of HTTP status codes.
type StatusRange struct{ From, To int }

// Check says how a real server is probed.
type Check struct {
	Kind       Kind
	Interval   time.Duration // between the starts of two probes of a real server
	Timeout    time.Duration // of one probe, all of it
	Retries    int           // a real server that was up is down after 1 + Retries failures in a row
	RetryDelay time.Duration // between failures while retrying
	Rise       int           // a real server that was down is up after so many successes in a row
	Port       uint16        // 0: the real server's

	Method   string        // http, https
	Path     string        // http, https; with query
	Host     string        // http, https: Host header and TLS server name; empty: the address
	Status   []StatusRange // http, https: expected codes
	Body     string        // http, https: must occur in the first 64 KiB of the body; empty: any
	Insecure bool          // https: don't verify the certificate
}

// Key names one checked real server; both parts are for logs and for the receiver of results.
type Key struct {
	Service string
	Address netip.Addr
}

// Target is one real server to be checked.
type Target struct {
	Key
	Port  uint16 // of the real server
	Check Check
	Up    bool // what it counts as until the first result
}

// Result is the outcome of one probe.
type Result struct {
	Key
	OK       bool   // of this probe
	Up       bool   // of the real server, after rise and retries
	Changed  bool   // this probe changed Up
	Reason   string // in plain words, for example "connect: connection refused"
	Duration time.Duration
}
