package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/packet"
	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// explain asks a director what becomes of a packet to port 80 of the VIP.
func (c *cluster) explain(client netip.AddrPort, more ...string) (e status.Explanation) {
	c.t.Helper()
	out, err := c.d[0].Command(append([]string{"explain", client.String(), web.String(), "--json"}, more...)...)
	c.ok(err)
	c.ok(json.Unmarshal(out, &e))
	return e
}

// nameOf is the name of the real server with an address.
func (c *cluster) nameOf(address string) string {
	for _, r := range c.lab.RealServers {
		if r.Address.String() == address {
			return r.Name
		}
	}
	return "nobody at " + address
}

func TestExplanationsAndCapturesSayWhatHappens(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		c.start(c.service())
		if _, err := c.d[0].Command("explain", "192.0.2.1", vip+":81"); err == nil || !strings.Contains(err.Error(), "the nearest: tcp "+web.String()) {
			t.Errorf("of a service that there isn't: %v", err)
		}
		if plane != ipvs { // which can't be asked beforehand
			for i := range 7 {
				e := c.explain(netip.AddrPortFrom(c.lab.Client.Address, 0))
				if got := c.get(web, 1)[0]; e.Why != "turn" || c.nameOf(e.RealServer) != got {
					t.Errorf("request %d went to %s, explained before as %+v", i, got, e)
				}
			}
		}
		conn, err := c.lab.Client.Dial(t.Context(), "tcp4", web.String())
		c.ok(err)
		defer conn.Close()
		client := netip.MustParseAddrPort(conn.LocalAddr().String())
		e := c.explain(client, "--ack")
		fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n")
		answer := make([]byte, 4096)
		n, err := conn.Read(answer)
		c.ok(err)
		if e.Why != "flow" || e.Flow == nil || strings.ToLower(e.Flow.State) != "established" || !strings.Contains(string(answer[:n]), c.nameOf(e.RealServer)) {
			t.Errorf("an open connection is explained as %+v, and was answered with %q", e, answer[:n])
		}
		if plane != ipvs {
			c.capture()
		}
		if plane == native {
			c.captureOverARestart()
		}
	})
}

// capture captures requests, and asks about what was captured.
func (c *cluster) capture() {
	c.t.Helper()
	file, sent := filepath.Join(c.t.TempDir(), "a.pcapng"), filepath.Join(c.t.TempDir(), "b.pcapng")
	load := c.load()
	_, err := c.d[0].Command("capture", "--filter", "host "+c.lab.Client.Address.String()+" and service "+c.serviceName()+" and verdict sent", "--count", "20", "-w", file)
	load.Stop()
	c.ok(err)
	out, err := c.d[0].Command("explain", "--pcap", file, "--out", sent)
	c.ok(err)
	if lines := strings.Count(string(out), "verdict tx"); lines != 20 {
		c.t.Errorf("of 20 packets that were sent %d would be sent again:\n%s", lines, out)
	}
	before, after := c.packets(file), c.packets(sent)
	if len(before) != 20 || len(after) != 20 {
		c.t.Fatalf("%d packets were captured and %d written, want 20", len(before), len(after))
	}
	for i := range before {
		if before[i].From != after[i].From || after[i].To != web || before[i].Destination == after[i].Destination || after[i].Source != before[i].Destination {
			c.t.Errorf("packet %d was %+v, and is sent as %+v", i, before[i], after[i])
		}
	}
	text, err := os.ReadFile(file)
	c.ok(err)
	if strings.Count(string(text), "tx to ") != 20 {
		c.t.Error("the packets have no comment with their verdict")
	}
}

// captureOverARestart has an agent come with new programs while somebody captures.
func (c *cluster) captureOverARestart() {
	c.t.Helper()
	load := c.load()
	defer load.Stop()
	type result struct {
		out []byte
		err error
	}
	captured := make(chan result, 1)
	go func() {
		out, err := c.d[0].Command("capture", "--filter", "port 80 and verdict sent", "--json", "--duration", "6s", "--rate", "50")
		captured <- result{out, err}
	}()
	_, err := c.d[0].Signal(lab.Agent, syscall.SIGKILL)
	c.ok(err)
	c.restarted(c.d[0], lab.Agent, 1)
	c.ok(c.d[0].Process().WaitLog(c.t.Context(), patience, "msg=ready", 2))
	ready := time.Now()
	r := <-captured
	c.ok(r.err)
	var last struct{ Time time.Time }
	for line := range strings.Lines(string(r.out)) {
		c.ok(json.Unmarshal([]byte(line), &last))
	}
	// What is idle for a second finds the new programs.
	if since := time.Since(ready); since > 3*time.Second && last.Time.Before(ready.Add(time.Second)) {
		c.t.Errorf("nothing is captured %s after a restart of the agent: the last packet is of %s", since, last.Time)
	}
}

func (c *cluster) serviceName() string {
	s, err := c.d[0].Status(c.t.Context())
	c.ok(err)
	return s.Services[0].Name
}

// packets reads a file of packets.
func (c *cluster) packets(file string) (list []packet.Packet) {
	c.t.Helper()
	f, err := os.Open(file)
	c.ok(err)
	defer f.Close()
	reader, err := packet.NewReader(f)
	c.ok(err)
	for r, err := reader.Next(); err == nil; r, err = reader.Next() {
		p, err := packet.Parse(r.Data)
		c.ok(err)
		list = append(list, p)
	}
	return list
}
