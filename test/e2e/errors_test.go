package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// Every real server gets an error with an MTU of its own, about its own connection: so that none can have got another's.
func TestErrorsReachTheRealServerOfTheirConnection(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 2)
		c.start(c.service())
		answers, err := c.lab.Client.Capture("eth0", func(b []byte) bool {
			return len(b) >= 54 && b[23] == 6 && binary.BigEndian.Uint16(b[34:]) == web.Port()
		})
		c.ok(err)
		mtu := uint16(600)
		for range c.lab.RealServers {
			conn, server := c.connect()
			port := uint16(conn.LocalAddr().(*net.TCPAddr).Port)
			// Sent until it has come to what the real server knows: it may still have been waiting for an acknowledgement.
			err := lab.Wait(t.Context(), patience, func() error {
				packet := newest(answers, port)
				if packet == nil {
					return fmt.Errorf("no packet to port %d", port)
				}
				c.ok(c.lab.Client.Send(tooBig(c.lab.Directors[0].MAC, c.lab.Client, packet, mtu)))
				return c.knows(server, mtu)
			})
			if err != nil {
				t.Errorf("%s has a connection that was told of an MTU of %d: %v", server, mtu, err)
			}
			mtu += 50
		}
	})
}

// newest is the last packet of a connection to this port of the client, as yet.
func newest(answers *lab.Wire, port uint16) []byte {
	for _, f := range slices.Backward(answers.Frames(time.Time{})) {
		if binary.BigEndian.Uint16(f.Data[36:]) == port {
			return f.Data[14:]
		}
	}
	return nil
}

// knows is nil when the real server sends no longer packets to the client.
func (c *cluster) knows(server string, mtu uint16) error {
	for _, r := range c.lab.RealServers {
		if r.Name == server {
			return r.Run("sh", "-c", fmt.Sprintf("ip route get %s | grep 'mtu %d '", c.lab.Client.Address, mtu))
		}
	}
	return errors.New("there is no such real server")
}

// tooBig is an error of ICMP by which a router says that what comes next behind the packet is too long.
func tooBig(to net.HardwareAddr, from *lab.Node, packet []byte, mtu uint16) []byte {
	quoted := bytes.Clone(packet[:28])
	data := int(binary.BigEndian.Uint16(packet[2:])) - 20 - int(packet[32]>>4)*4
	sequence := binary.BigEndian.Uint32(packet[24:]) + uint32(data)
	binary.BigEndian.PutUint32(quoted[24:], sequence)
	icmp := slices.Concat([]byte{3, 4, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, quoted)
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
	source := from.Address.As4()
	ip := slices.Concat([]byte{0x45, 0, 0, byte(20 + len(icmp)), 0, 1, 0, 0, 64, 1, 0, 0}, source[:], netip.MustParseAddr(vip).AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return slices.Concat(to, from.MAC, []byte{8, 0}, ip, icmp)
}

// checksum is RFC 1071's, of an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for pair := range slices.Chunk(b, 2) {
		sum += uint32(binary.BigEndian.Uint16(pair))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
