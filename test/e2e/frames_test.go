package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// isSYN says whether a frame is the first segment of a connection from a port.
func isSYN(b []byte, from uint16) bool {
	return isTCP(b) && b[47]&0x12 == 2 && binary.BigEndian.Uint16(b[34:]) == from
}

// isAnswer says whether a frame is a SYN-ACK to a port.
func isAnswer(b []byte, to uint16) bool {
	return isTCP(b) && b[47]&0x12 == 0x12 && binary.BigEndian.Uint16(b[36:]) == to
}

func TestFloodedFrameIsNotForwarded(t *testing.T) {
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 1)
		s := c.service()
		c.start(s)
		c.ok(c.d[1].WaitState(t.Context(), "VI_1", "BACKUP", patience))
		const port = 2000
		keep := func(b []byte) bool { return isSYN(b, port) }
		flooded, err := c.lab.Directors[1].CapturePort(keep)
		c.ok(err)
		served, err := c.lab.RealServers[0].CapturePort(func(b []byte) bool {
			return isSYN(b, port) && slices.Equal(b[:6], c.lab.RealServers[0].MAC)
		})
		c.ok(err)
		// The MASTER's adverts teach the switch anew all the time: try until a frame was flooded to the BACKUP.
		sent := 0
		c.ok(lab.Wait(t.Context(), patience, func() error {
			if len(flooded.Frames(time.Time{})) > 0 {
				return nil
			}
			c.ok(c.lab.Directors[0].Forget())
			c.ok(c.lab.Client.Send(lab.SYN(c.lab.Directors[0].MAC, c.lab.Client.MAC, netip.AddrPortFrom(c.lab.Client.Address, port), web)))
			sent++
			return fmt.Errorf("no frame was flooded in %d", sent)
		}))
		c.get(web, 1) // all that was on its way has arrived
		for _, f := range served.Frames(time.Time{}) {
			if from := net.HardwareAddr(f.Data[6:12]); from.String() != c.lab.Directors[0].MAC.String() {
				t.Errorf("r1 got a frame forwarded by %s, want only the MASTER, %s", from, c.lab.Directors[0].MAC)
			}
		}
		if got := len(served.Frames(time.Time{})); got != sent {
			t.Errorf("r1 got %d frames of %d", got, sent)
		}
		// A frame for nobody here goes to both directors, and neither may take it.
		const nobody = 2001
		strays, err := c.lab.RealServers[0].CapturePort(func(b []byte) bool {
			return isSYN(b, nobody) && slices.Equal(b[:6], c.lab.RealServers[0].MAC)
		})
		c.ok(err)
		c.ok(c.lab.Client.Send(lab.SYN(net.HardwareAddr{2, 0, 0, 0x77, 0, 0xfe}, c.lab.Client.MAC, netip.AddrPortFrom(c.lab.Client.Address, nobody), web)))
		c.get(web, 1)
		if got := strays.Frames(time.Time{}); len(got) > 0 {
			t.Errorf("a frame for another MAC was forwarded %d times", len(got))
		}
	})
}

// TestDirectorsBehindEachOtherCirculateNothing has two directors that are each other's real servers, once as MASTER
// and BACKUP, where each of them gets frames, and once with two MASTERs that don't hear one another. IPVS can't tell a
// frame that another MASTER has balanced, so that it is safe there with one MASTER only.
func TestDirectorsBehindEachOtherCirculateNothing(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		for _, masters := range []int{1, 2} {
			if masters == 2 && plane == ipvs {
				break
			}
			t.Run(fmt.Sprintf("masters=%d", masters), func(t *testing.T) {
				c := newCluster(t, plane, 2, 0)
				s := lab.Service{Address: vip, Port: 80}
				for _, n := range c.lab.Directors {
					c.ok(n.CarryVIPs(vip))
					_, err := n.StartNginx(80)
					c.ok(err)
					s.RealServers = append(s.RealServers, lab.RealServer{Address: n.Address})
				}
				for i, d := range c.d {
					config := c.config(i, s)
					if masters == 2 {
						config.Instances[0].VRID = uint8(51 + i)
					}
					c.ok(d.Configure(config))
					c.ok(d.Start())
					c.ok(d.WaitStatus(t.Context(), patience, serversUp))
				}
				c.ok(c.d[0].WaitState(t.Context(), "VI_1", "MASTER", patience))
				if masters == 2 {
					c.ok(c.d[1].WaitState(t.Context(), "VI_1", "MASTER", patience))
				} else {
					c.ok(c.d[1].WaitState(t.Context(), "VI_1", "BACKUP", patience))
				}
				for i, n := range c.lab.Directors {
					c.circulates(n, uint16(3000+i))
				}
			})
		}
	})
}

// circulates sends connections to one director and counts their frames on the ports of both.
func (c *cluster) circulates(to *lab.Node, port uint16) {
	c.t.Helper()
	const sent = 20
	var wires []*lab.Wire
	for _, n := range c.lab.Directors {
		w, err := n.CapturePort(func(b []byte) bool { return isSYN(b, port) })
		c.ok(err)
		wires = append(wires, w)
	}
	answers, err := c.lab.Client.Capture("eth0", func(b []byte) bool { return isAnswer(b, port) })
	c.ok(err)
	for i := range sent {
		// 20 clients, so that 20 flows: their addresses are on no box, and the answers come to the client's MAC.
		source := netip.AddrFrom4([4]byte{10, 77, 0, byte(200 + i)})
		c.ok(c.lab.Client.AddAddress("lo", source.String()+"/32"))
		c.ok(c.lab.Client.Send(lab.SYN(to.MAC, c.lab.Client.MAC, netip.AddrPortFrom(source, port), web)))
	}
	err = lab.Wait(c.t.Context(), patience, func() error {
		clients := make(map[string]bool)
		for _, f := range answers.Frames(time.Time{}) {
			clients[string(f.Data[30:34])] = true
		}
		if len(clients) < sent {
			return fmt.Errorf("%d of %d connections sent to %s were answered", len(clients), sent, to.Name)
		}
		return nil
	})
	if err != nil {
		c.t.Error(err)
	}
	total := 0
	for _, w := range wires {
		total += len(w.Frames(time.Time{}))
	}
	// In at the one port; at most out there again, and in at the other one.
	if total < sent || total > 3*sent {
		c.t.Errorf("%d connections sent to %s: %d frames on the wires of the directors, want %d to %d", sent, to.Name, total, sent, 3*sent)
	}
	for i := range sent {
		c.ok(c.lab.Client.DeleteAddress("lo", fmt.Sprintf("10.77.0.%d/32", 200+i)))
	}
}
