package xdp

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

func counting(scheduler lb.Scheduler, servers ...lb.RealServer) lb.State {
	web := service(webKey, servers...)
	web.Scheduler = scheduler
	return state(web)
}

// active is the number of active flows of each server, by its number.
func active(t testing.TB, p *Plane) map[int]int {
	t.Helper()
	all := map[int]int{}
	for key, traffic := range counters(t, p).RealServers {
		all[int(key.Address.As4()[3])] = int(traffic.Active)
	}
	return all
}

// Flows begin and end at random: the server that gets the next one is always one of those with the least, for its weight.
func TestTheServerWithTheFewestActiveFlowsGetsTheNextOne(t *testing.T) {
	for name, s := range map[string]lb.State{
		"lc":             counting(lb.LeastConnection, weighted(1, 1), weighted(2, 7), weighted(3, 1), weighted(4, 0), downServer(5)),
		"wlc":            counting(lb.WeightedLeastConnection, weighted(1, 1), weighted(2, 3), weighted(3, 2), weighted(4, 0), downServer(5)),
		"as many as all": counting(lb.WeightedLeastConnection, manyServers(16)...),
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestPlane(t, s)
			weight, counted := map[int]int{}, map[int]int{}
			for _, r := range s.Services[0].RealServers {
				if n := int(r.Address.As4()[3]); r.Schedulable() {
					weight[n] = 1
					if s.Services[0].Scheduler == lb.WeightedLeastConnection {
						weight[n] = int(r.Weight)
					}
				}
			}
			random := rand.New(rand.NewPCG(1, 2))
			flows := map[int]int{} // servers, by flow
			for n := range 1000 {
				if len(flows) > 0 && random.IntN(5) < 2 {
					for flow, server := range flows {
						sentTo(t, p, flowPacket(flow, []byte{rst, fin | ack}[random.IntN(2)]))
						sentTo(t, p, flowPacket(flow, fin|ack)) // again: it ends once
						delete(flows, flow)
						counted[server]--
						break
					}
					continue
				}
				server := sentTo(t, p, flowPacket(n, syn))
				for other, w := range weight {
					if counted[server]*w > counted[other]*weight[server] {
						t.Fatalf("flow %d went to server %d, with %v active flows", n, server, counted)
					}
				}
				flows[n] = server
				counted[server]++
			}
			got := active(t, p)
			for server, want := range counted {
				if got[server] != want {
					t.Errorf("server %d has %d active flows, want %d", server, got[server], want)
				}
			}
		})
	}
}

// Of many servers a sample is seen: that comes close.
func TestManyServersGetActiveFlowsByTheirWeights(t *testing.T) {
	servers := manyServers(100)
	sum := 0
	for i := range servers {
		servers[i].Weight = uint16(1 + i%3)
		sum += 1 + i%3
	}
	p := newTestPlane(t, counting(lb.WeightedLeastConnection, servers...))
	const each = 50
	for n := range each * sum {
		sentTo(t, p, flowPacket(n, syn))
	}
	for server, got := range active(t, p) {
		if want := each * (1 + (server-1)%3); got < want*85/100 || got > want*115/100 {
			t.Errorf("server %d has %d active flows, want about %d", server, got, want)
		}
	}
}

func TestFlowsThatAreForgottenAreNotActive(t *testing.T) {
	p := newTestPlane(t, counting(lb.LeastConnection, server(1), server(2)))
	for n := range 20 {
		sentTo(t, p, flowPacket(n, syn))
	}
	if got := active(t, p); got[1] != 10 || got[2] != 10 {
		t.Errorf("active flows %v, want 10 each", got)
	}
	age(t, p, openingTimeout+2*time.Second)
	for n := range 4 { // their places are taken before anybody has swept
		sentTo(t, p, flowPacket(n, syn))
	}
	if got := active(t, p); got[1]+got[2] != 4 {
		t.Errorf("active flows %v after all but 4 were forgotten", got)
	}
	p = reopen(t, p, nil)
	if got := active(t, p); got[1]+got[2] != 4 {
		t.Errorf("active flows %v after a restart", got)
	}
	// The next owner of an id begins with none, and what its predecessor's flows do is nothing to it.
	apply(t, p, counting(lb.LeastConnection, server(2)))
	apply(t, p, counting(lb.LeastConnection, server(2), server(3)))
	age(t, p, openingTimeout+2*time.Second)
	if got := active(t, p); got[3] != 0 || got[2] != 0 {
		t.Errorf("active flows %v, want none", got)
	}
}
