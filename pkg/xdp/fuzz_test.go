package xdp

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/xdirector/xdirector/pkg/lb"
)

// checkAnyFrame holds for whatever comes in: what is sent is what came, with the addresses of a live real server and
// of the egress interface in front; everything else is untouched.
func checkAnyFrame(t *testing.T, p *Plane, frame []byte) (sent bool) {
	t.Helper()
	action, out := run(t, p, frame)
	var source lb.MAC
	live := false
	switch action {
	case xdpPass, xdpDrop:
		if !bytes.Equal(out, frame) {
			t.Fatalf("action %d changed frame\n%x into\n%x", action, frame, out)
		}
		return false
	case xdpTX: // live on eth0 in tableState
		source = eth0MAC
		live = lb.MAC(out[:6]) == serverMAC(1) || lb.MAC(out[:6]) == serverMAC(2)
	case xdpRedirect:
		source = eth1MAC
		live = lb.MAC(out[:6]) == serverMAC(3)
	default:
		t.Fatalf("action %d for frame\n%x", action, frame)
	}
	if !live {
		t.Fatalf("frame sent to %s, which is no live real server there:\n%x", lb.MAC(out[:6]), frame)
	}
	if lb.MAC(out[6:12]) != source {
		t.Fatalf("frame sent from %s, want %s", lb.MAC(out[6:12]), source)
	}
	if !bytes.Equal(out[12:], frame[12:]) {
		t.Fatalf("more than addresses changed: frame\n%x, sent\n%x", frame, out)
	}
	return true
}

func TestRandomAndMutatedFramesAreSentUnharmedOrLeftAlone(t *testing.T) {
	p := newTestPlane(t, tableState())
	random := rand.New(rand.NewPCG(3, 4))
	sent := 0
	for range 20000 {
		frame := packetTable[random.IntN(len(packetTable))].packet.bytes()
		switch random.IntN(4) {
		case 0: // noise of any length
			frame = make([]byte, 14+random.IntN(120))
			for i := range frame {
				frame[i] = byte(random.Uint32())
			}
		case 1: // cut short
			frame = frame[:14+random.IntN(len(frame)-13)]
		default: // a few wrong bytes
			for range 1 + random.IntN(3) {
				frame[random.IntN(len(frame))] = byte(random.Uint32())
			}
		}
		if checkAnyFrame(t, p, frame) {
			sent++
		}
	}
	if sent < 1000 {
		t.Errorf("only %d of 20000 frames were sent: the mutations are too wild to prove anything", sent)
	}
}

func FuzzFrame(f *testing.F) {
	p := newTestPlane(f, tableState())
	for _, row := range packetTable {
		f.Add(row.packet.bytes())
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 1500 {
			return // the kernel doesn't run a program on those
		}
		checkAnyFrame(t, p, frame)
	})
}
