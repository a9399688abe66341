package health

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: a raw socket is needed")
	}
}

func newICMP(t *testing.T) *icmpProber {
	t.Helper()
	needRoot(t)
	i := &icmpProber{}
	t.Cleanup(i.close)
	return i
}

func TestICMPCheckIsAnsweredByLoopback(t *testing.T) {
	i := newICMP(t)
	if got := run(t, i, 0, Check{}); got != "" {
		t.Errorf("127.0.0.1: %s", got)
	}
	six := netip.IPv6Loopback()
	if err := i.probe(t.Context(), probe{source: six, address: six, check: withDefaults(Check{})}); err != nil {
		t.Errorf("::1: %v", err)
	}
	if len(i.v4.waiting)+len(i.v6.waiting) != 0 {
		t.Error("answered probes are still waited for")
	}
}

func TestICMPCheckSharesOneSocketBetweenProbesAtTheSameTime(t *testing.T) {
	i := newICMP(t)
	failed := make(chan error)
	for n := range 200 {
		go func() {
			address := netip.AddrFrom4([4]byte{127, 0, 1, byte(n)})
			failed <- i.probe(t.Context(), probe{source: loopback, address: address, check: withDefaults(Check{})})
		}()
	}
	for range 200 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

func TestICMPCheckFailures(t *testing.T) {
	i := newICMP(t)
	err := i.probe(t.Context(), probe{source: netip.MustParseAddr("192.0.2.1"), address: loopback, check: withDefaults(Check{})})
	if want := "send echo request from 192.0.2.1: "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("source that this box doesn't have: %v, want an error that begins with %q", err, want)
	}
}

func TestICMPCheckTakesOnlyItsOwnReply(t *testing.T) {
	i := newICMP(t)
	s, err := i.socket(loopback)
	if err != nil {
		t.Fatal(err)
	}
	target := netip.MustParseAddr("127.0.0.7")
	e := &echo{target: target, reply: make(chan struct{}), token: [16]byte{1, 2, 3}}
	sequence, err := s.register(e)
	if err != nil {
		t.Fatal(err)
	}
	packet := func(kind icmp.Type, id, sequence uint16, data []byte) []byte {
		b, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: int(id), Seq: int(sequence), Data: data}}).Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := packet(ipv4.ICMPTypeEchoReply, s.id, sequence, e.token[:])
	tests := []struct {
		name   string
		source netip.Addr
		packet []byte
	}{
		{"another source", netip.MustParseAddr("127.0.0.8"), good},
		{"a request", target, packet(ipv4.ICMPTypeEcho, s.id, sequence, e.token[:])},
		{"another id", target, packet(ipv4.ICMPTypeEchoReply, s.id+1, sequence, e.token[:])},
		{"another sequence number", target, packet(ipv4.ICMPTypeEchoReply, s.id, sequence+1, e.token[:])},
		{"another token", target, packet(ipv4.ICMPTypeEchoReply, s.id, sequence, make([]byte, 16))},
		{"no token", target, packet(ipv4.ICMPTypeEchoReply, s.id, sequence, nil)},
		{"a cut packet", target, good[:5]},
		{"an empty packet", target, nil},
	}
	for _, test := range tests {
		s.receive(test.source, test.packet)
		select {
		case <-e.reply:
			t.Fatalf("%s was taken for the reply", test.name)
		default:
		}
	}
	s.receive(target, good)
	s.receive(target, good) // a duplicate harms nobody
	select {
	case <-e.reply:
	case <-time.After(time.Second):
		t.Error("the reply was not taken")
	}
}

func TestICMPCheckTimesOutWithoutAReply(t *testing.T) {
	i := newICMP(t)
	s, err := i.socket(loopback)
	if err != nil {
		t.Fatal(err)
	}
	// The request goes on the wire and its reply comes, but from another address than the one that was asked.
	write := s.write
	s.write = func(message []byte, source, _ netip.Addr) error {
		return write(message, source, netip.MustParseAddr("127.0.0.2"))
	}
	if got, want := run(t, i, 0, Check{Timeout: short}), "no echo reply: timeout after 200ms"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(s.waiting) != 0 {
		t.Error("a probe that has ended is still waited for")
	}
}
