package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/packet"
	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// Explain sends every frame on, but drops what is shorter than 50 bytes.
func (o *obedient) Explain(_ context.Context, q control.Question) ([]status.Explanation, error) {
	e := status.Explanation{
		Packet: "a SYN from " + q.From.String() + " to tcp " + q.To.String(), Service: "web", Scheduler: "rr", Verdict: "tx", RealServer: "10.0.0.3",
		Plane: "xdp-native", Interface: "eth0", Why: "turn", Place: 12, Places: 64, Stored: true,
		NextHop: &status.NextHop{Interface: "eth0", MAC: "02:00:00:00:00:03", SourceMAC: "02:00:00:00:00:01"},
	}
	if len(q.Frames) == 0 {
		o.heard = q.Kind + " " + q.Interface
		e.Describe()
		return []status.Explanation{e}, nil
	}
	var list []status.Explanation
	for _, frame := range q.Frames {
		one := e
		if one.Frame = frame; len(frame) < 50 {
			one = status.Explanation{Packet: "a short one", Verdict: "drop", Drop: "no_flow", Frame: frame}
		}
		one.Describe()
		list = append(list, one)
	}
	return list, nil
}

func TestExplainPrintsTheAnswerAsOneBlock(t *testing.T) {
	o := &obedient{}
	file := serveDirector(t, o)
	code, out, errOut := command(t, "explain", "--config", file, "192.0.2.1:40000", "10.0.0.100:80", "--ack", "--interface", "eth7")
	const want = `a SYN from 192.0.2.1:40000 to tcp 10.0.0.100:80 (service web) goes to 10.0.0.3
  why       schedule rr: turn 12 of 64, which the next new flow gets
  flow      none yet: this packet begins one
  next hop  02:00:00:00:00:03 on eth0, from 02:00:00:00:00:01
  verdict   tx on eth0, plane xdp-native
`
	if code != 0 || out != want || errOut != "" || o.heard != "ack eth7" {
		t.Errorf("exit code %d, heard %q, stdout\n%s, want\n%sstderr %s", code, o.heard, out, want, errOut)
	}
	code, out, _ = command(t, "explain", "--config", file, "--json", "2001:db8::1", "[2001:db8::2]:80")
	var e status.Explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 0 || e.RealServer != "10.0.0.3" || e.Packet != "a SYN from [2001:db8::1]:0 to tcp [2001:db8::2]:80" {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
}

func TestExplainAnswersForEachPacketOfAFile(t *testing.T) {
	folder := t.TempDir()
	in, out := filepath.Join(folder, "in.pcapng"), filepath.Join(folder, "out.pcapng")
	file := serveDirector(t, &obedient{})
	syn := packet.Packet{From: netip.MustParseAddrPort("192.0.2.1:1"), To: netip.MustParseAddrPort("10.0.0.100:80"), Protocol: packet.TCP, Flags: packet.SYN}
	var content bytes.Buffer
	w, err := packet.NewWriter(&content, "test")
	if err != nil {
		t.Fatal(err)
	}
	const count = 1000 // more than one question takes
	for i := range count {
		frame := syn.Frame()
		if i%2 == 1 {
			frame = frame[:40]
		}
		if err := w.Write(packet.Record{Data: frame}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(in, content.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	code, text, errOut := command(t, "explain", "--config", file, "--pcap", in, "--out", out)
	lines := strings.Split(text, "\n")
	if code != 0 || len(lines) != count+1 || !strings.HasPrefix(lines[0], "1: a SYN from ") || !strings.HasSuffix(lines[0], "goes to 10.0.0.3, verdict tx, turn") ||
		!strings.HasPrefix(lines[count-1], "1000: a short one is dropped: ") || errOut != "1000 packets, of which 500 would be sent\n" {
		t.Errorf("exit code %d, %d lines from %q to %q, stderr %q", code, len(lines), lines[0], lines[len(lines)-2], errOut)
	}
	written, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer written.Close()
	reader, err := packet.NewReader(written)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for r, err := reader.Next(); err == nil; r, err = reader.Next() {
		if n++; !bytes.Equal(r.Data, syn.Frame()) || r.Interface != "eth0" {
			t.Fatalf("packet %d of the file that was written is %+v", n, r)
		}
	}
	if n != count/2 {
		t.Errorf("%d packets were written, want %d", n, count/2)
	}
}

func TestFiltersOfCapture(t *testing.T) {
	web := lb.ServiceKey{Address: netip.MustParseAddr("10.0.0.100"), Port: 80, Protocol: lb.TCP}
	cfg := &config.Config{Services: []config.Service{
		{Name: "web", Address: web.Address, Port: web.Port, Protocol: web.Protocol}, {Name: "ftp", Forwarding: lb.NAT},
	}}
	client := netip.MustParsePrefix("192.0.2.1/32")
	for text, want := range map[string]xdp.Filter{
		"":                                  {},
		"host 192.0.2.1":                    {Host: client},
		"host 192.0.2.77/24":                {Host: netip.MustParsePrefix("192.0.2.0/24")},
		"host 2001:db8::1 and port 443":     {Host: netip.MustParsePrefix("2001:db8::1/128"), Port: 443},
		"tcp host 192.0.2.1 service web":    {Host: client, Service: web, Protocol: lb.TCP},
		"udp and port 53":                   {Port: 53, Protocol: lb.UDP},
		"verdict drop":                      {Verdicts: []string{"drop"}},
		"verdict sent":                      {Verdicts: []string{"to_previous_master", "tx", "redirect"}},
		"reason no_flow,denied and port 80": {Port: 80, Verdicts: []string{"drop"}, Drops: []string{"no_flow", "denied"}},
	} {
		if got, err := parseFilter(text, cfg); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v (%v), want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"hots 192.0.2.1":    `"hots" is no word of it (did you mean "host"?)`,
		"host":              "nothing stands behind host",
		"host web":          `host "web": write an address`,
		"port 0":            `port "0": write a number`,
		"port 65536":        `port "65536": write a number`,
		"service wbe":       `no service "wbe" is configured here (did you mean "web"?)`,
		"service ftp":       "only IPVS forwards by NAT",
		"verdict dorp":      `no verdict is called "dorp" (did you mean "drop"?)`,
		"reason no_flwo":    `no reason of drops is called "no_flwo" (did you mean "no_flow"?)`,
		"tcp udp":           "no packet is both",
		"port 1 and port 2": "port is there twice",
	} {
		if _, err := parseFilter(text, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %s", text, err, want)
		}
	}
}
