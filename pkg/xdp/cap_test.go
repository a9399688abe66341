package xdp

import (
	"testing"

	"github.com/xdirector/xdirector/pkg/lb"
)

func TestAServerHasNoMoreFlowsThanItMay(t *testing.T) {
	many := manyServers(200) // of so many lc sees a sample, and the first places of an order are of a few
	for i := range many {
		many[i].MaxConnections = 1
		many[i].Weight = uint16(1 + i%50)
	}
	few := func() []lb.RealServer { return []lb.RealServer{capped(1, 5), capped(2, 1), capped(3, 4)} }
	type row struct {
		name      string
		scheduler lb.Scheduler
		servers   []lb.RealServer
	}
	var rows []row
	for _, s := range []lb.Scheduler{lb.RoundRobin, lb.WeightedRoundRobin, lb.LeastConnection, lb.WeightedLeastConnection, lb.SourceHashing, lb.MaglevHashing} {
		rows = append(rows, row{string(s), s, few()}, row{string(s) + " of many", s, many})
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			most, room := map[int]int{}, 0
			for _, r := range row.servers {
				most[int(r.Address.As4()[3])] = int(r.MaxConnections)
				room += int(r.MaxConnections)
			}
			wish := counting(row.scheduler, row.servers...)
			p := newTestPlane(t, wish)
			flows := map[int]int{} // servers, by flow
			open := func(n int) bool {
				action, out := run(t, p, flowPacket(n, syn).bytes())
				if action == xdpTX {
					flows[n] = int(out[5])
				}
				return action == xdpTX
			}
			for n := range room + 20 {
				if sent := open(n); sent != (n < room) {
					t.Fatalf("flow %d of %d: sent is %v", n, room, sent)
				}
			}
			check := func(when string) {
				t.Helper()
				for server, got := range active(t, p) {
					if got != most[server] {
						t.Errorf("%s, server %d has %d active flows, want %d", when, server, got, most[server])
					}
				}
			}
			check("full")
			if refused := counters(t, p).Refused[webKey]["full"]; refused != 20 {
				t.Errorf("%d refused as full, want 20", refused)
			}
			if row.scheduler == lb.WeightedRoundRobin {
				p = reopen(t, p, nil)
				apply(t, p, wish)
			}
			if open(5000) {
				t.Error("there is room that is not there")
			}
			sentTo(t, p, flowPacket(3, fin|ack))
			if !open(5001) || flows[5001] != flows[3] {
				t.Errorf("flow 3 of server %d has ended; the next one went to %d", flows[3], flows[5001])
			}
			check("full again")
			for n, server := range flows {
				if got := sentTo(t, p, flowPacket(n, ack)); got != server {
					t.Fatalf("known flow %d went to server %d, want %d", n, got, server)
				}
			}
			sentTo(t, p, flowPacket(6000, ack)) // of a connection from before a takeover
		})
	}
}

func TestAChangedCapHoldsForTheNextFlow(t *testing.T) {
	with := func(most uint32) lb.State { return state(service(webKey, capped(1, most))) }
	p := newTestPlane(t, with(0))
	for _, step := range []struct{ most, sent int }{{0, 10}, {3, 0}, {12, 2}, {0, 10}} {
		apply(t, p, with(uint32(step.most)))
		if sent := opened(t, p, client, 1000*(1+step.most)+int(counters(t, p).FlowTable.Flows), 10); sent != step.sent {
			t.Errorf("at most %d: %d new flows, want %d", step.most, sent, step.sent)
		}
	}
}

func TestAClientThatIsBoundToAFullServerStaysThere(t *testing.T) {
	p := newTestPlane(t, state(persistent(service(webKey, capped(1, 1), server(2)))))
	if got := sentTo(t, p, packet{flags: syn}); got != 1 {
		t.Fatalf("first flow went to server %d, want 1", got)
	}
	if got := sentTo(t, p, packet{flags: syn, fromPort: 9}); got != 1 {
		t.Errorf("the next flow of the client went to server %d, want 1", got)
	}
	if got := newFlows(t, p, 1000, 1); got[0] != 1 {
		t.Errorf("and the one after that to %d, want 1", got[0])
	}
	other := packet{flags: syn, from: serverAddress(200)}
	if got := sentTo(t, p, other); got != 2 {
		t.Errorf("another client's flow went to server %d, want 2", got)
	}
}
