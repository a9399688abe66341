package director

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/packet"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// dryRun is an XDP plane that gives one answer, on eth0.
type dryRun struct {
	says  lb.Explanation
	asked packet.Packet
}

func (d *dryRun) Explain(_ string, frame []byte) (lb.Explanation, error) {
	var err error
	d.asked, err = packet.Parse(frame)
	d.says.Frame = frame
	return d.says, err
}

func (d *dryRun) Arrival(iface string) (lb.MAC, uint16, bool) {
	return lb.MAC{2, 0, 0, 0, 0, 1}, 10, iface == "eth0"
}

func explaining(dry *dryRun, state vrrp.State) explainer {
	service := func(name, address string, first, last uint16, protocol lb.Protocol) config.Service {
		return config.Service{Name: name, Address: netip.MustParseAddr(address), Port: first, LastPort: last, Protocol: protocol, Scheduler: lb.RoundRobin}
	}
	mail := service("mail", "10.0.0.100", 25, 0, lb.TCP)
	mail.Forwarding = lb.NAT
	return explainer{
		cfg: &config.Config{
			Instances: []config.Instance{{Name: "VI_1", Interface: "eth0", VirtualAddresses: []config.VirtualAddress{{Prefix: netip.MustParsePrefix("10.0.0.100/32")}}}},
			Services: []config.Service{
				service("web", "10.0.0.100", 80, 0, lb.TCP), service("dns", "10.0.0.100", 53, 0, lb.UDP), service("wide", "10.0.0.100", 8000, 8099, lb.TCP),
				service("narrow", "10.0.0.100", 8042, 0, lb.TCP), service("other", "172.16.0.1", 80, 0, lb.TCP), mail,
			},
			Dataplane: config.Dataplane{Interfaces: []string{"eth0"}},
		},
		plane:     plane{name: lb.XDPNative, Plane: nil},
		dry:       dry,
		instances: []ha.InstanceReport{{Name: "VI_1", State: state, Master: netip.MustParseAddr("10.0.0.2")}},
	}
}

func question(from, to, kind string) control.Question {
	return control.Question{From: netip.MustParseAddrPort(from), To: netip.MustParseAddrPort(to), Kind: kind}
}

func TestExplanationsSpeakOfWhatIsConfigured(t *testing.T) {
	key := func(port, last uint16, protocol lb.Protocol) lb.ServiceKey {
		return lb.ServiceKey{Address: netip.MustParseAddr("10.0.0.100"), Port: port, LastPort: last, Protocol: protocol}
	}
	server := netip.MustParseAddr("10.0.0.3")
	hop := lb.Exit{Interface: "eth0", MAC: lb.MAC{2, 0, 0, 0, 1, 3}, Source: lb.MAC{2, 0, 0, 0, 0, 1}}
	for name, tt := range map[string]struct {
		says  lb.Explanation
		state vrrp.State
		q     control.Question
		want  []string // lines of the text
	}{
		"a turn": {
			lb.Explanation{Verdict: "tx", Interface: "eth0", Service: key(80, 0, lb.TCP), RealServer: server, NextHop: hop, Why: lb.WhyTurn, Place: 2, Places: 3, Stored: true},
			vrrp.Master, question("192.0.2.1:1234", "10.0.0.100:80", ""), []string{
				"a SYN from 192.0.2.1:1234 to tcp 10.0.0.100:80 (service web) goes to 10.0.0.3",
				"why schedule rr: turn 2 of 3, which the next new flow gets", "flow none yet: this packet begins one",
				"next hop 02:00:00:00:01:03 on eth0, from 02:00:00:00:00:01", "verdict tx on eth0, plane xdp-native"}},
		"a known flow, while another director is MASTER": {
			lb.Explanation{Verdict: "tx", Service: key(80, 0, lb.TCP), RealServer: server, NextHop: hop, Why: lb.WhyFlow,
				Flow: &lb.FlowState{Phase: lb.PhaseEstablished, Left: 90 * time.Second, RealServer: server}},
			vrrp.Backup, question("192.0.2.1:0", "10.0.0.100:80", "ack"), []string{
				"an ACK from 192.0.2.1:40000 to tcp 10.0.0.100:80 (service web) goes to 10.0.0.3", "why its flow is known",
				"flow established, to 10.0.0.3, forgotten in 1m30s without a packet",
				"note no port of the client was given: 40000 is tried; 192.0.2.1:PORT asks about a connection that is there",
				"note this director is BACKUP of VI_1: packets to 10.0.0.100 go to 10.0.0.2, which is MASTER"}},
		"no real server": {
			lb.Explanation{Verdict: "drop", Drop: "no_real_server", Service: key(53, 0, lb.UDP)},
			vrrp.Master, question("192.0.2.1:1234", "10.0.0.100:53", ""), []string{
				"a UDP packet from 192.0.2.1:1234 to udp 10.0.0.100:53 (service dns) is dropped: no real server is up, and it is no SYN that could be refused",
				"verdict drop (no_real_server), plane xdp-native", "note xdirector status says of each real server why"}},
		"the one real server is this box": {
			lb.Explanation{Verdict: "pass_local", Service: key(8042, 0, lb.TCP), RealServer: server, NextHop: lb.Exit{Local: true}, Why: lb.WhyPersistence},
			vrrp.Master, question("192.0.2.1:1234", "10.0.0.100:8042", "syn"), []string{
				"a SYN from 192.0.2.1:1234 to tcp 10.0.0.100:8042 (service narrow) goes to this very box, which is real server 10.0.0.3",
				"why persistence: the client is bound to this real server", "next hop this box"}},
		"a verdict that has no words yet": {
			lb.Explanation{Verdict: "pass_later", Service: key(8000, 8099, lb.TCP)}, vrrp.Master, question("192.0.2.1:1234", "10.0.0.100:8001", "syn"),
			[]string{"a SYN from 192.0.2.1:1234 to tcp 10.0.0.100:8001 (service wide) has the verdict pass_later"}},
	} {
		t.Run(name, func(t *testing.T) {
			dry := &dryRun{says: tt.says}
			one, err := explaining(dry, tt.state).packet(tt.q)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			if err := one.Text(&text); err != nil {
				t.Fatal(err)
			}
			var lines []string
			for line := range strings.Lines(text.String()) {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
			for _, want := range tt.want {
				if !slices.Contains(lines, want) {
					t.Errorf("no line %q in\n%s", want, text.String())
				}
			}
			if lb.MAC(dry.asked.Destination) != (lb.MAC{2, 0, 0, 0, 0, 1}) || dry.asked.VLAN != 10 || dry.asked.To != tt.q.To {
				t.Errorf("asked about %+v", dry.asked)
			}
		})
	}
}

func TestWhoMistakesAServiceIsToldTheNearest(t *testing.T) {
	e := explaining(&dryRun{}, vrrp.Master)
	for name, tt := range map[string]struct {
		q    control.Question
		want string
	}{
		"a wrong port": {question("192.0.2.1:1", "10.0.0.100:81", ""),
			"no service at tcp 10.0.0.100:81 is configured here; the nearest: tcp 10.0.0.100:80 (web), "},
		"a wrong address":  {question("192.0.2.1:1", "172.16.0.2:80", "syn"), "the nearest: tcp 172.16.0.1:80 (other), "},
		"a wrong protocol": {question("192.0.2.1:1", "10.0.0.100:80", "udp"), "no service at udp 10.0.0.100:80 is configured here; the nearest: tcp 10.0.0.100:80 (web), "},
		"a wrong kind":     {question("192.0.2.1:1", "10.0.0.100:80", "fin"), `no kind of packets is called "fin": there are syn, ack, udp`},
		"a wrong interface": {control.Question{From: netip.MustParseAddrPort("192.0.2.1:1"), To: netip.MustParseAddrPort("10.0.0.100:80"), Interface: "eht0"},
			`no packets are balanced on interface "eht0": there are eth0`},
		"of two families":    {question("[2001:db8::1]:1", "10.0.0.100:80", ""), "2001:db8::1 and 10.0.0.100 are not of one family"},
		"on IPVS, with none": {question("192.0.2.1:1", "10.0.0.100:25", ""), "service mail is on no plane now"},
	} {
		if _, err := e.packet(tt.q); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error is %v, want %s", name, err, tt.want)
		}
	}
}

func TestFramesAreExplainedEachForItself(t *testing.T) {
	dry := &dryRun{says: lb.Explanation{Verdict: "pass_not_ours"}}
	e := explaining(dry, vrrp.Master)
	frame := packet.Packet{From: netip.MustParseAddrPort("192.0.2.1:1"), To: netip.MustParseAddrPort("10.0.0.100:81"), Protocol: packet.TCP, Flags: packet.RST}.Frame()
	list, err := e.frames(t.Context(), control.Question{Frames: [][]byte{frame, make([]byte, 13), frame}})
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, want := range []string{"an RST from 192.0.2.1:1 to tcp 10.0.0.100:81 belongs to no service: the kernel of this box takes it", "a frame of 13 bytes can't be run: "} {
		if !strings.HasPrefix(list[i].Answer, want) {
			t.Errorf("answer %d is %q, want %q", i, list[i].Answer, want)
		}
	}
	e.dry, e.plane = nil, plane{name: lb.IPVS, reason: "dataplane.mode is ipvs"}
	if _, err := e.frames(t.Context(), control.Question{Frames: [][]byte{frame}}); err == nil || !strings.Contains(err.Error(), "there is no XDP plane here to run frames through: dataplane.mode is ipvs") {
		t.Errorf("error is %v", err)
	}
}
