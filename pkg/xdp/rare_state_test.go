package xdp

import (
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

func TestAnErrorOfICMPChangesNothing(t *testing.T) {
	p := newTestPlane(t, state(service(webKey, server(1), server(2))))
	for range 3 { // without a flow: where the hash says, always the same
		if got, want := sentTo(t, p, failure(3, packet{}, packet{})), sentTo(t, p, failure(3, packet{toPort: 9}, packet{})); got != want {
			t.Errorf("errors about one client's flows go to servers %d and %d", got, want)
		}
	}
	if size := counters(t, p).FlowTable; size.Flows != 0 || size.Unstored != 0 {
		t.Errorf("errors made flows: %+v", size)
	}
	if got := newFlows(t, p, 1000, 2); got[0] != 1 || got[1] != 2 {
		t.Errorf("new flows went to servers %d, want 1 and 2: an error has no turn", got)
	}
	// Nor does one keep a flow alive.
	age(t, p, openingTimeout-5*time.Second)
	sentTo(t, p, failure(3, packet{toPort: 1000}, packet{}))
	age(t, p, 10*time.Second)
	if size := counters(t, p).FlowTable; size.Flows != 0 {
		t.Errorf("after their timeout %d flows are known", size.Flows)
	}
}

func TestAnErrorOfICMPGoesToThePersistentClientsServer(t *testing.T) {
	p := newTestPlane(t, state(persistent(service(webKey, manyServers(20)...))))
	newFlows(t, p, 1000, 1)
	want := sentTo(t, p, packet{flags: syn, from: peer})
	if got := sentTo(t, p, failure(3, packet{to: peer, toPort: 9}, packet{from: client})); got != want {
		t.Errorf("an error about an unknown flow went to server %d, its client's is %d", got, want)
	}
}

func TestFragmentsFollowTheirFirstOneAsLongAsItsServerLives(t *testing.T) {
	both := func(first, second lb.RealServer) lb.State { return state(service(webKey, first, second)) }
	for _, row := range []struct {
		name  string
		after lb.State
		age   time.Duration
		want  uint32
	}{
		{"at once", both(server(1), server(2)), 0, xdpTX},
		{"before 30 seconds", both(server(1), server(2)), 29 * time.Second, xdpTX},
		{"not after 30 seconds", both(server(1), server(2)), 30 * time.Second, xdpDrop},
		{"weight 0 keeps them", both(weighted(1, 0), server(2)), 0, xdpTX},
		{"down", both(downServer(1), server(2)), 0, xdpDrop},
		{"removed", both(server(3), server(2)), 0, xdpDrop},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newTestPlane(t, both(server(1), server(2)))
			if got := sentTo(t, p, first4(packet{flags: syn})); got != 1 {
				t.Fatalf("the first fragment went to server %d, want 1", got)
			}
			apply(t, p, row.after)
			age(t, p, row.age)
			if action, _ := run(t, p, later4(packet{}).bytes()); action != row.want {
				t.Errorf("the other one: action %d, want %d", action, row.want)
			}
		})
	}
}

func TestNotedFragmentsOutliveTheAgent(t *testing.T) {
	cfg := testConfig(mountBPFFS(t))
	wish := state(service(webKey, server(1), server(2)))
	p := openPlane(t, cfg, twoInterfaces)
	apply(t, p, wish)
	sentTo(t, p, nine)
	sentTo(t, p, first4(packet{flags: syn}))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	next := openPlane(t, cfg, twoInterfaces)
	apply(t, next, wish)
	if got := sentTo(t, next, later4(packet{})); got != 2 {
		t.Errorf("a fragment went to server %d, its first one to 2", got)
	}
}
