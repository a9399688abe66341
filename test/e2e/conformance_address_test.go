package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// whoHas asks all neighbours for the MAC of an address, by ARP or neighbour solicitation.
func whoHas(n *lab.Node, a netip.Addr) []byte {
	if a.Is4() {
		b := append(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, n.MAC...)
		b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
		b = append(append(b, n.MAC...), n.Address.AsSlice()...)
		return append(append(b, make([]byte, 6)...), a.AsSlice()...)
	}
	last := a.As16()
	group := netip.MustParseAddr("ff02::1:ff00:0").As16() // the solicited-node group
	copy(group[13:], last[13:])
	b := append(net.HardwareAddr{0x33, 0x33, group[12], group[13], group[14], group[15]}, n.MAC...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255)
	b = append(append(b, n.LinkLocal.AsSlice()...), group[:]...)
	icmp := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, last[:]...)
	icmp = append(append(icmp, 1, 1), n.MAC...)
	sum := 58 + 32
	for _, part := range [][]byte{b[22:54], icmp} {
		sum += int(ones(part))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(sum))
	return append(b, icmp...)
}

// tells reads which MAC an answer to whoHas gives for the address.
func tells(b []byte, a netip.Addr) (told, from net.HardwareAddr, ok bool) {
	if a.Is4() {
		if len(b) < 42 || binary.BigEndian.Uint16(b[12:]) != 0x0806 || binary.BigEndian.Uint16(b[20:]) != 2 || [4]byte(b[28:]) != a.As4() {
			return nil, nil, false
		}
		return b[22:28], b[6:12], true
	}
	if len(b) < 86 || binary.BigEndian.Uint16(b[12:]) != 0x86dd || b[20] != 58 || b[54] != 136 || [16]byte(b[62:]) != a.As16() || b[58]&0x40 == 0 {
		return nil, nil, false
	}
	return b[80:86], b[6:12], true
}

// TestMasterAloneAnswersForTheAddresses: V-74, V-84, V-85, V-88, V-89, V-90. One answer to each question, at once after a
// takeover, with the virtual MAC where there is one.
func TestMasterAloneAnswersForTheAddresses(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, _ string) {
		c := newCluster(t, "", 2, 0)
		instances := func(priority uint8) []lab.Instance {
			at := func(name string, vrid uint8, address string, more ...string) lab.Instance {
				return lab.Instance{Name: name, VRID: vrid, Version: 3, Priority: priority, Interval: interval, Addresses: []string{address}, More: more}
			}
			return []lab.Instance{
				at("four", 51, "10.77.0.101/32"), at("six", 51, "fe80::77:101/128"),
				at("four-mac", 52, "10.77.0.102/32", "virtual_mac: true"), at("six-mac", 52, "fe80::77:102/128", "virtual_mac: true"),
			}
		}
		for n, d := range c.d {
			c.ok(d.Configure(lab.Config{Instances: instances(uint8(200 - 100*n))}))
			c.ok(d.Start())
		}
		all := func(d *lab.Director, want string) {
			t.Helper()
			c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
				for _, i := range s.Instances {
					if i.State != want {
						return fmt.Errorf("%s is %s, want %s", i.Name, i.State, want)
					}
				}
				return nil
			}))
		}
		all(c.d[0], "MASTER")
		all(c.d[1], "BACKUP")
		c.answers(c.d[0], instances(0))
		c.ok(c.d[0].Stop())
		all(c.d[1], "MASTER")
		c.answers(c.d[1], instances(0))
	})
}

// answers checks that a director answers for all addresses, once, and nobody else does.
func (c *cluster) answers(d *lab.Director, instances []lab.Instance) {
	c.t.Helper()
	for _, i := range instances {
		a := virtual(i)[0]
		want := d.MAC
		if i.More != nil {
			want = net.HardwareAddr{0, 0, 0x5e, 0, 1, i.VRID}
			if a.Is6() {
				want[4] = 2
			}
		}
		heard, err := c.lab.Client.Capture("eth0", func(b []byte) bool {
			_, _, ok := tells(b, a)
			return ok
		})
		c.ok(err)
		const questions = 3
		for n := range questions {
			c.ok(c.lab.Client.Send(whoHas(c.lab.Client, a)))
			c.ok(lab.Wait(c.t.Context(), patience, func() error {
				if got := len(heard.Frames(time.Time{})); got < n+1 {
					return fmt.Errorf("%d answers to %d questions for %s", got, n+1, a)
				}
				return nil
			}))
		}
		frames := heard.Frames(time.Time{})
		if len(frames) != questions {
			c.t.Errorf("%d answers to %d questions for %s", len(frames), questions, a)
		}
		for _, f := range frames {
			if told, from, _ := tells(f.Data, a); told.String() != want.String() || from.String() != want.String() {
				c.t.Errorf("%s: the answer tells %s and comes from %s, want %s", a, told, from, want)
			}
		}
	}
}
