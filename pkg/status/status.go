// Package status is the one picture of the whole: plain values that the director publishes and that the command
// line, the control API and Prometheus print. A published Status is never changed afterwards.
package status

import "time"

// Status is what one director knows at one moment. JSON names are part of the control API (/v1/status).
type Status struct {
	Version   string     `json:"version"`
	RouterID  string     `json:"router_id"`
	Started   time.Time  `json:"started"`
	Time      time.Time  `json:"time"` // when this picture was made
	Stopping  bool       `json:"stopping,omitempty"`
	Healthy   bool       `json:"healthy"`             // the loop turns and every plane is as configured
	Unhealthy string     `json:"unhealthy,omitempty"` // the reason when Healthy is false
	Instances []Instance `json:"instances"`
	Plane     Plane      `json:"plane"`
	Services  []Service  `json:"services"`
	Reload    Reload     `json:"reload"`

	Interfaces []Interface `json:"interfaces"`
	FlowTable  FlowTable   `json:"flow_table"` // zero on IPVS, whose table grows

	Measured  time.Time  `json:"measured,omitzero"`   // when the counters of packets and bytes were read; zero: not yet
	Counted   time.Time  `json:"counted"`             // no flow counted here was counted before that
	Overrides []Override `json:"overrides,omitempty"` // what operators wish of real servers until they take it back, or a reboot

	Notifications []Notifications `json:"notifications,omitempty"`

	Election    Election `json:"election"`
	Maintenance bool     `json:"maintenance,omitempty"` // the operator has taken this box out of all elections
}

// Notifications is what became of what was to be told to one target, or to the commands of all instances, sync groups, services
// or real servers (instance, sync_group, service, real_server).
type Notifications struct {
	Target  string `json:"target"`
	Sent    uint64 `json:"sent"`
	Failed  uint64 `json:"failed"`          // given up after all attempts
	Dropped uint64 `json:"dropped"`         // never tried, since too much waited already
	Error   string `json:"error,omitempty"` // of the last attempt, if it failed
}

// FlowTable is how full the XDP plane's table of known flows is.
type FlowTable struct {
	Size     uint64 `json:"size"` // flows that it holds without loss
	Flows    uint64 `json:"flows"`
	Unstored uint64 `json:"unstored"` // packets of new flows that found no place: a hash chose their real server
}

// Election is the process that runs the elections.
type Election struct {
	PID      int      `json:"pid,omitempty"` // 0: it runs in the agent's process, or is being restarted
	Restarts uint64   `json:"restarts"`
	Denied   []string `json:"denied,omitempty"` // what the kernel did not permit it, with the cure
	// How late it was for its own timers: counts by upper bound in seconds, not cumulative; the last has no bound.
	LatenessBounds []float64 `json:"lateness_bounds,omitempty"`
	LatenessCounts []uint64  `json:"lateness_counts,omitempty"`
	LatenessSum    float64   `json:"lateness_sum_seconds"`
	FastPath       string    `json:"fast_path"` // off, filter, absorb, as it is in effect
	FastPathReason string    `json:"fast_path_reason,omitempty"`
}

// Instance is one VRRP virtual router.
type Instance struct {
	Name            string    `json:"name"`
	Interface       string    `json:"interface"`
	VirtualRouterID uint8     `json:"virtual_router_id"`
	Version         uint8     `json:"version"`
	State           string    `json:"state"` // INIT, BACKUP, MASTER, FAULT
	Since           time.Time `json:"since"`
	Reason          string    `json:"reason"` // why it is in this state, in plain words
	Priority        uint8     `json:"priority"`
	Source          string    `json:"source"` // of our adverts; empty: none
	Master          string    `json:"master"` // address of the MASTER's adverts, ours included; empty: not known
	MasterPriority  uint8     `json:"master_priority"`
	Addresses       []string  `json:"addresses"`  // configured virtual addresses, with prefix length
	Mismatches      []Notice  `json:"mismatches"` // what another box does differently

	Transitions     map[string]uint64 `json:"transitions"` // by the state entered
	AdvertsSent     uint64            `json:"adverts_sent"`
	AdvertsReceived uint64            `json:"adverts_received"` // accepted ones
	AdvertsRefused  map[string]uint64 `json:"adverts_refused"`  // by reason

	ConfiguredPriority uint8             `json:"configured_priority"`
	AdvertInterval     time.Duration     `json:"advert_interval_ns"`
	Tracked            string            `json:"tracked,omitempty"` // what changes the priority, or keeps it in FAULT
	Yielding           bool              `json:"yielding,omitempty"`
	SyncGroup          string            `json:"sync_group,omitempty"`
	AdvertsAbsorbed    uint64            `json:"adverts_absorbed"`
	AdvertsByForm      map[string]uint64 `json:"adverts_by_form,omitempty"`  // rfc5798, rfc9568
	AdvertsFiltered    map[string]uint64 `json:"adverts_filtered,omitempty"` // by the plane, by reason
	AddressesRestored  uint64            `json:"addresses_restored"`
}

// Notice is a difference to another box on the same virtual router, in plain words.
type Notice struct {
	Kind string `json:"kind"` // addresses, collision, version, password, interval, ...
	Peer string `json:"peer"`
	Text string `json:"text"`
}

// Plane is what forwards packets, and why.
type Plane struct {
	Name   string `json:"name"`   // xdp-native, xdp-generic, ipvs; empty without services
	Reason string `json:"reason"` // why this one, in plain words
	// Degraded: a faster plane would be used, but does not work here; or none does.
	Degraded bool `json:"degraded,omitempty"`
	// Differences are settings of the kernel and of drivers that are not as the plane needs them, each with the cure.
	Differences []string `json:"differences,omitempty"`
}

// Service is one service and what was counted for it.
type Service struct {
	Name        string            `json:"name"`
	Address     string            `json:"address"` // or a network; empty with a firewall mark
	Port        uint16            `json:"port"`    // 0: all ports
	Protocol    string            `json:"protocol"`
	Scheduler   string            `json:"scheduler"`
	Persistence time.Duration     `json:"persistence_ns,omitempty"`
	Plane       Plane             `json:"plane"`
	Quorum      Quorum            `json:"quorum"`
	SorryServer *SorryServer      `json:"sorry_server,omitempty"`
	RealServers []RealServer      `json:"real_servers"`
	Refused     map[string]uint64 `json:"refused,omitempty"` // packets that its limits refused, by reason; nil: it has none

	LastPort     uint16 `json:"last_port,omitempty"` // of a range
	FirewallMark uint32 `json:"firewall_mark,omitempty"`
	Forwarding   string `json:"forwarding"` // direct, nat, tunnel
}

// Quorum is whether the real servers of a service that are up have enough weight.
type Quorum struct {
	Up         bool      `json:"up"`
	Since      time.Time `json:"since,omitzero"` // zero: since the start
	Weight     int       `json:"weight"`         // of the real servers that are up
	Needed     int       `json:"needed"`
	Hysteresis int       `json:"hysteresis"`
}

// SorryServer gets the new flows of a service without a quorum.
type SorryServer struct {
	Address      string `json:"address"`
	Port         uint16 `json:"port"`
	Active       bool   `json:"active"` // it gets the new flows
	NextHop      string `json:"next_hop"`
	NextHopError string `json:"next_hop_error,omitempty"`
	Packets      uint64 `json:"packets"`
	Bytes        uint64 `json:"bytes"`
	FlowsCreated uint64 `json:"flows_created"`
	Flows        uint64 `json:"flows"`
}

// The kinds of an Override.
const (
	KindDrain  = "drain"
	KindWeight = "weight"
)

// Override is what an operator wishes of one real server.
type Override struct {
	Service          string    `json:"service"`
	RealServer       string    `json:"real_server"` // its address
	Kind             string    `json:"kind"`
	Weight           uint16    `json:"weight"` // in place of the configured one; of a drain 0
	ConfiguredWeight uint16    `json:"configured_weight"`
	Since            time.Time `json:"since"`
	Until            time.Time `json:"until,omitzero"`   // deadline of a drain; zero: until it is taken back
	Over             bool      `json:"over,omitempty"`   // the deadline is past: flows that were left are scheduled afresh
	Flows            uint64    `json:"flows,omitempty"`  // that a drained real server still has
	Active           uint64    `json:"active,omitempty"` // those of them that are not closing
}

// RealServer is one real server of a service.
type RealServer struct {
	Address        string            `json:"address"`
	Port           uint16            `json:"port"`       // 0: the packet's
	Weight         uint16            `json:"weight"`     // with the override of an operator
	SlowStart      int               `json:"slow_start"` // percent of its weight that it has as yet; 0: all
	Up             bool              `json:"up"`
	Reason         string            `json:"reason"` // of the last check result; "no check" without one
	Since          time.Time         `json:"since"`  // of the last change of Up
	NextHop        string            `json:"next_hop"`
	NextHopError   string            `json:"next_hop_error,omitempty"`
	Checks         map[string]uint64 `json:"checks"`      // results so far by "up" and "down"
	Transitions    map[string]uint64 `json:"transitions"` // changes of Up so far, by "up" and "down"
	CheckDuration  time.Duration     `json:"check_duration_ns"`
	KeepsFlows     bool              `json:"keeps_flows,omitempty"` // it is down, and its flows are not scheduled afresh
	Packets        uint64            `json:"packets"`
	Bytes          uint64            `json:"bytes"`
	FlowsCreated   uint64            `json:"flows_created"`
	Flows          uint64            `json:"flows"`
	Active         uint64            `json:"active"`                    // flows that are not closing
	MaxConnections uint32            `json:"max_connections,omitempty"` // no new flows while so many are active; 0: as many as come
}

// Reload is the outcome of the last load of the configuration file.
type Reload struct {
	Success bool      `json:"success"` // what the file said then is in force
	Time    time.Time `json:"time"`    // when the configuration in force was loaded
	Error   string    `json:"error,omitempty"`
	// RolledBack: the file was in force, and was taken back since it cost something; Error says what.
	RolledBack bool      `json:"rolled_back,omitempty"`
	TrialUntil time.Time `json:"trial_until,omitzero"` // it is taken back if something is lost until then
}

// Interface is one interface with an XDP program and what the program counted there.
type Interface struct {
	Name     string            `json:"name"`
	Mode     string            `json:"mode"` // native, generic
	Verdicts map[string]uint64 `json:"verdicts"`
	Drops    map[string]uint64 `json:"drops"`
	Lost     []RedirectErrors  `json:"lost,omitempty"`
}

// RedirectErrors counts frames that were lost after the program had redirected them to another interface.
type RedirectErrors struct {
	To     string `json:"to"`     // interface
	Reason string `json:"reason"` // in a word: down, too_long, ...
	Frames uint64 `json:"frames"`
}
