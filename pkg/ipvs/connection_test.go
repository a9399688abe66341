package ipvs

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

const connections = `Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP C0000201 0000 0A000064 01BB 0A000004 01BB NONE             299
TCP C0000201 9C40 0A000064 0050 0A000003 0050 ESTABLISHED      871
UDP C0000201 9C40 0A000064 0035 0A000005 0035 UDP              100
TCP C0000201 9C41 0A000064 01BB 0A000003 01BB FIN_WAIT          60
TCP 2001:0db8:0001:0000:0000:0000:0000:0001 9C40 2001:0db8:0000:0000:0000:0000:0000:0100 0050 2001:0db8:0000:0000:0000:0000:0000:0003 0050 SYN_RECV          42
broken
`

func TestAConnectionIsFoundInTheKernelsTable(t *testing.T) {
	for name, tt := range map[string]struct {
		protocol lb.Protocol
		from, to string
		want     Connection
	}{
		"tcp":         {lb.TCP, "192.0.2.1:40000", "10.0.0.100:80", Connection{netip.MustParseAddrPort("10.0.0.3:80"), "ESTABLISHED", 871 * time.Second, false}},
		"udp":         {lb.UDP, "192.0.2.1:40000", "10.0.0.100:53", Connection{netip.MustParseAddrPort("10.0.0.5:53"), "UDP", 100 * time.Second, false}},
		"IPv6":        {lb.TCP, "[2001:db8:1::1]:40000", "[2001:db8::100]:80", Connection{netip.MustParseAddrPort("[2001:db8::3]:80"), "SYN_RECV", 42 * time.Second, false}},
		"persistence": {lb.TCP, "192.0.2.1:40000", "10.0.0.100:443", Connection{netip.MustParseAddrPort("10.0.0.4:443"), "NONE", 299 * time.Second, true}},
		"a connection in spite of persistence": {lb.TCP, "192.0.2.1:40001", "10.0.0.100:443",
			Connection{netip.MustParseAddrPort("10.0.0.3:443"), "FIN_WAIT", 60 * time.Second, false}},
		"another port": {lb.TCP, "192.0.2.1:40001", "10.0.0.100:80", Connection{}},
	} {
		got, ok, err := findConnection(strings.NewReader(connections), tt.protocol, netip.MustParseAddrPort(tt.from), netip.MustParseAddrPort(tt.to))
		if err != nil || got != tt.want || ok != (tt.want != Connection{}) {
			t.Errorf("%s: got %+v, %v (%v), want %+v", name, got, ok, err, tt.want)
		}
	}
}
