package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

const (
	patience   = 30 * time.Second
	maxRouters = 1000
	perNetwork = 250 // virtual routers, one address each
)

// The contestants.
const (
	xdirector  = "xdirector"
	keepalived = "keepalived"
)

var contestants = []string{xdirector, keepalived}

// pair is two boxes that run the same program; the first has the higher priority.
type pair struct {
	name    string
	lab     *lab.Lab
	nodes   []*lab.Node
	sent    []*lab.Wire // by box, on the first network
	d       []*lab.Director
	k       []*lab.Process
	config  []lab.Config
	routers [][]lab.Keepalived
}

// virtualRouter is one of many: on which interface, with which VRID and address. The first one's address is in the
// network of the client.
func virtualRouter(n int) (iface string, vrid uint8, address string) {
	if n == 0 {
		return "eth0", 1, "10.77.0.100/32"
	}
	network, n := n/perNetwork, n%perNetwork
	return fmt.Sprintf("eth%d", network), uint8(n + 1), fmt.Sprintf("10.%d.1.%d/32", 77+network, n+1)
}

// newPair builds a lab with n virtual routers; servers is the number of real servers behind a service at the address of
// the first one. Nothing runs yet.
func newPair(name, binary string, n, servers int, interval time.Duration, fastPath string) (_ *pair, err error) {
	_, _, first := virtualRouter(0)
	vip := netip.MustParsePrefix(first).Addr().String()
	l, err := lab.New(lab.Options{Directors: 2, RealServers: servers, VIPs: []string{vip}})
	if err != nil {
		return nil, err
	}
	p := &pair{name: name, lab: l, nodes: l.Directors, k: make([]*lab.Process, 2)}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if err := l.AddNetworks((n - 1) / perNetwork); err != nil {
		return nil, err
	}
	for i, node := range p.nodes {
		w, err := node.CaptureSent(lab.IsVRRP)
		if err != nil {
			return nil, err
		}
		p.sent = append(p.sent, w)
		var config lab.Config
		var routers []lab.Keepalived
		for k := range n {
			iface, vrid, address := virtualRouter(k)
			priority, name := uint8(200-100*i), fmt.Sprintf("R%d", k)
			config.Instances = append(config.Instances, lab.Instance{
				Name: name, Interface: iface, VRID: vrid, Version: 3, Priority: priority, Interval: interval, Addresses: []string{address},
			})
			routers = append(routers, lab.Keepalived{
				Name: name, Interface: iface, VRID: vrid, Version: 3, Priority: priority, Interval: interval, Addresses: []string{address},
			})
		}
		config.FastPath = fastPath
		if fastPath != "" {
			config.Mode = "xdp-native"
		}
		if servers > 0 {
			s := lab.Service{Address: vip, Port: 80, Check: "{type: http}"}
			for _, r := range l.RealServers {
				s.RealServers = append(s.RealServers, lab.RealServer{Address: r.Address})
			}
			config.Mode, config.Services = "xdp-native", []lab.Service{s}
		}
		p.config, p.routers = append(p.config, config), append(p.routers, routers)
		if name == xdirector {
			d, err := l.NewDirector(node, binary)
			if err != nil {
				return nil, err
			}
			p.d = append(p.d, d)
		}
	}
	return p, nil
}

// start runs the program on a box.
func (p *pair) start(box int) error {
	if p.name == xdirector {
		if err := p.d[box].Configure(p.config[box]); err != nil {
			return err
		}
		return p.d[box].Start()
	}
	var err error
	p.k[box], err = p.nodes[box].StartQuietKeepalived(p.routers[box]...)
	return err
}

func (p *pair) process(box int) *lab.Process {
	if p.name == xdirector {
		return p.d[box].Process()
	}
	return p.k[box]
}

// stop ends the program as an operator does.
func (p *pair) stop(box int) error {
	if p.name == xdirector {
		return p.d[box].Stop()
	}
	return p.k[box].Terminate(patience)
}

// elected waits until a box is MASTER of the first and the last virtual router, and nobody else sends adverts: five of them
// in a row.
func (p *pair) elected(ctx context.Context, box int) error {
	from := time.Now()
	return lab.Wait(ctx, patience, func() error {
		mine, others := p.sent[box].AdvertsFor(false, 1, from), p.sent[1-box].AdvertsFor(false, 1, from)
		if len(others) > 0 {
			mine = p.sent[box].AdvertsFor(false, 1, others[len(others)-1].Time)
		}
		_, _, last := virtualRouter(len(p.routers[box]) - 1)
		held, err := p.nodes[box].Holds("", netip.MustParsePrefix(last).Addr())
		if len(mine) < 5 || !held || err != nil {
			return fmt.Errorf("%s on %s: %d adverts in a row, last address held: %v (%v)\n%s", p.name, p.nodes[box].Name, len(mine), held, err, tail(p.process(box).Log()))
		}
		return nil
	})
}

// both runs the program on both boxes, one after the other: the first one is MASTER then.
func (p *pair) both(ctx context.Context) error {
	for box := range p.nodes {
		if err := p.start(box); err != nil {
			return err
		}
		if err := p.elected(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// elections are the processes on a box whose cost is that of the election.
func (p *pair) elections(box int) []int {
	process := p.process(box)
	if p.name == keepalived {
		return process.PIDs()
	}
	return append([]int{process.PID()}, process.PIDsWith("election")...)
}

// tail is the end of a log.
func tail(log string) string {
	const most = 2000
	return log[max(0, len(log)-most):]
}
