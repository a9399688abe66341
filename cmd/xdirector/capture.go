package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/packet"
	"github.com/xdirector/xdirector/pkg/vrrp"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// captureFlags are those of capture.
type captureFlags struct {
	adverts  bool
	filter   string
	file     string
	count    int
	duration time.Duration
	rate     uint32
}

func newCapture() *cobra.Command {
	var f captureFlags
	c := &cobra.Command{
		Use:   "capture [--filter EXPRESSION] [-w FILE] | capture --vrrp [-w FILE]",
		Short: "Show packets of services, or VRRP adverts, and what the XDP programs did with them",
		Long: `Show packets of services as they reached the XDP programs of this director, and what became of each: forwarded to which
real server, dropped and why, or left to the kernel. tcpdump sees only the last ones. With --vrrp show VRRP adverts instead:
passed to the election, absorbed, or dropped and why. It ends by Ctrl-C, after --count packets or after --duration.

-w writes a pcapng file for Wireshark and tcpdump -r, with what became of each packet as its comment. Of each packet its first
254 bytes are kept. At most --rate packets a second are shown, and it is told how many more there were: choose with --filter.
One capture at a time is possible. While there is none, it costs the packets nothing.

EXPRESSION is one or more of these, of which all must hold; "and" between them may be left out:
  host ADDRESS       source or destination, also a network: host 192.0.2.0/24
  port NUMBER        source or destination
  service NAME       as in the configuration
  tcp, udp
  verdict NAME,...   ` + strings.Join(xdp.Verdicts(), ", ") + `,
                     or sent, passed for all of a kind
  reason NAME,...    of a drop: ` + strings.Join(xdp.Drops(), ", "),
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case f.adverts && f.filter != "":
				return usageError{errors.New("capture: --filter is for packets of services, not for --vrrp")}
			case f.count < 0 || f.duration < 0 || f.rate == 0:
				return usageError{errors.New("capture: --count, --duration and --rate can't be less than nothing")}
			}
			return capture(c, f)
		},
	}
	c.Flags().BoolVar(&f.adverts, "vrrp", false, "VRRP adverts instead of packets of services")
	c.Flags().StringVar(&f.filter, "filter", "", "only packets for which `EXPRESSION` holds")
	c.Flags().StringVarP(&f.file, "write", "w", "", "write them to the pcapng `FILE` instead of showing them; - is stdout")
	c.Flags().IntVar(&f.count, "count", 0, "end after this `NUMBER` of packets; 0: never")
	c.Flags().DurationVar(&f.duration, "duration", 0, "end after this `TIME` (10s, 5m); 0: never")
	c.Flags().Uint32Var(&f.rate, "rate", 1000, "`NUMBER` of packets a second at most")
	return c
}

func capture(c *cobra.Command, f captureFlags) error {
	cfg, err := config.Load(configFile(c))
	if err != nil {
		return showProblems(err, c.ErrOrStderr())
	}
	filter, err := parseFilter(f.filter, cfg)
	if err != nil {
		return usageError{fmt.Errorf("capture: --filter: %w", err)}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if f.duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	show := shower(c.OutOrStdout(), wantsJSON(c))
	if f.file != "" {
		out := c.OutOrStdout()
		if f.file != "-" {
			file, err := os.Create(f.file)
			if err != nil {
				return err
			}
			defer file.Close()
			out = file
		}
		if show, err = keeper(out); err != nil {
			return err
		}
	}
	shown := 0
	missed, err := xdp.Capture(ctx, cfg.Dataplane.PinPath, xdp.Watch{Adverts: f.adverts, Filter: filter, Rate: f.rate}, func(one xdp.Captured) error {
		if f.count > 0 && shown == f.count { // the end is on its way
			return nil
		}
		if err := show(one); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if shown++; shown == f.count {
			cancel()
		}
		return nil
	})
	if err == nil && (missed > 0 || f.file != "") {
		fmt.Fprintf(c.ErrOrStderr(), "%d packets, and %d more that were too many (see --filter and --rate)\n", shown, missed)
	}
	return err
}

// shower shows what was captured as lines.
func shower(out io.Writer, asJSON bool) func(xdp.Captured) error {
	return func(one xdp.Captured) error {
		if one.Advert {
			return show(out, asJSON, seenOf(one))
		}
		if asJSON {
			return json.NewEncoder(out).Encode(seenPacketOf(one))
		}
		_, err := fmt.Fprintln(out, seenPacketOf(one).line())
		return err
	}
}

// keeper writes what was captured to a file.
func keeper(out io.Writer) (func(xdp.Captured) error, error) {
	w, err := packet.NewWriter(out, "xdirector "+version)
	if err != nil {
		return nil, err
	}
	return func(one xdp.Captured) error {
		record := packet.Record{Time: one.Time, Interface: nameOf(one.Interface), Length: one.Length, Data: one.Frame}
		if one.Advert {
			record.Comment = "advert: " + seenOf(one).Fate
		} else {
			record.Comment = seenPacketOf(one).outcome()
		}
		return w.Write(record)
	}, nil
}

// nameOf is an interface's name, or its number if it is gone.
func nameOf(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return fmt.Sprintf("interface %d", index)
}

// seenPacket is a captured packet of a service as --json prints it, one on a line.
type seenPacket struct {
	Time       time.Time `json:"time"`
	Interface  string    `json:"interface"`
	Packet     string    `json:"packet"` // "SYN 192.0.2.1:40000 > 192.168.5.100:80"
	Length     int       `json:"length"`
	Verdict    string    `json:"verdict"`
	Drop       string    `json:"drop_reason,omitempty"`
	RealServer string    `json:"real_server,omitempty"`
	MAC        string    `json:"mac,omitempty"` // that it was sent to
	Out        string    `json:"out,omitempty"` // the interface that it left by
	VLAN       uint16    `json:"vlan,omitempty"`
}

func seenPacketOf(c xdp.Captured) seenPacket {
	p, err := packet.Parse(c.Frame)
	s := seenPacket{Time: c.Time, Interface: nameOf(c.Interface), Packet: p.String(), Length: c.Length, Verdict: c.Verdict, Drop: c.Drop, VLAN: c.VLAN}
	if err != nil {
		s.Packet += ", " + err.Error()
	}
	if c.RealServer.IsValid() {
		s.RealServer = c.RealServer.String()
	}
	if c.Out != 0 {
		s.MAC, s.Out = c.MAC.String(), nameOf(c.Out)
	}
	return s
}

func (s seenPacket) line() string {
	return fmt.Sprintf("%s %s %s, %d bytes: %s", s.Time.Format("15:04:05.000000"), s.Interface, s.Packet, s.Length, s.outcome())
}

// outcome is what became of the packet.
func (s seenPacket) outcome() string {
	text := s.Verdict
	if s.Drop != "" {
		text += " (" + s.Drop + ")"
	}
	if s.RealServer != "" {
		text += " to " + s.RealServer
	}
	if s.Out != "" {
		text += fmt.Sprintf(" (%s on %s", s.MAC, s.Out)
		if s.VLAN != 0 {
			text += fmt.Sprintf(", VLAN %d", s.VLAN)
		}
		text += ")"
	}
	return text
}

// seen is a captured advert as --json prints it, one on a line.
type seen struct {
	Time        time.Time    `json:"time"`
	Interface   string       `json:"interface"`
	Fate        string       `json:"fate"`
	MAC         string       `json:"mac"`
	Source      netip.Addr   `json:"source"`
	Destination netip.Addr   `json:"destination"`
	TTL         uint8        `json:"ttl"`
	Version     uint8        `json:"version,omitempty"`
	VRID        uint8        `json:"virtual_router_id,omitempty"`
	Priority    uint8        `json:"priority"`
	Interval    string       `json:"advert_interval,omitempty"`
	Addresses   []netip.Addr `json:"virtual_addresses,omitempty"`
	Problem     string       `json:"problem,omitempty"` // why it can't be read
}

func show(w io.Writer, asJSON bool, s seen) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	line := fmt.Sprintf("%s %s %s %s > %s", s.Time.Format("15:04:05.000000"), s.Interface, s.MAC, s.Source, s.Destination)
	if s.Problem != "" {
		line += fmt.Sprintf(", VRID %d, TTL %d: %s", s.VRID, s.TTL, s.Problem)
	} else {
		var list []string
		for _, a := range s.Addresses {
			list = append(list, a.String())
		}
		line += fmt.Sprintf(", version %d, VRID %d, priority %d, every %s, TTL %d, for %s", s.Version, s.VRID, s.Priority, s.Interval, s.TTL, strings.Join(list, " "))
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", line, s.Fate)
	return err
}

// seenOf reads a frame from the Ethernet header on.
func seenOf(c xdp.Captured) seen {
	s := seen{Time: c.Time, Interface: nameOf(c.Interface), Fate: c.Fate}
	if !c.Ours {
		s.Fate += ", for no virtual router of ours"
	}
	payload, err := s.headers(c.Frame)
	if err != nil {
		s.Problem = err.Error()
		return s
	}
	advert, err := vrrp.Parse(payload, s.Source, s.Destination)
	if err != nil {
		if s.Problem = err.Error(); c.Length > len(c.Frame) {
			s.Problem = fmt.Sprintf("too long to be read from its first %d bytes", len(c.Frame))
		}
		if len(payload) > 1 {
			s.Version, s.VRID = payload[0]>>4, payload[1]
		}
		return s
	}
	s.Version, s.VRID, s.Priority, s.Interval, s.Addresses = advert.Version, advert.VRID, advert.Priority, advert.Interval.String(), advert.Addresses
	return s
}

var errShort = errors.New("the frame is cut short")

// headers reads the Ethernet and IP headers and returns what follows them, so far as it was captured.
func (s *seen) headers(frame []byte) ([]byte, error) {
	if len(frame) < 14 {
		return nil, errShort
	}
	s.MAC = net.HardwareAddr(frame[6:12]).String()
	kind, packet := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	for (kind == 0x8100 || kind == 0x88a8) && len(packet) >= 4 { // VLAN tags
		kind, packet = binary.BigEndian.Uint16(packet[2:]), packet[4:]
	}
	switch {
	case kind == 0x0800 && len(packet) >= 20:
		header, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
		s.TTL = packet[8]
		s.Source, s.Destination = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		if header < 20 || total < header || header > len(packet) {
			return nil, errors.New("its IP header is broken")
		}
		return packet[header:min(total, len(packet))], nil
	case kind == 0x86dd && len(packet) >= 40:
		s.TTL = packet[7]
		s.Source, s.Destination = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		return packet[40:min(40+int(binary.BigEndian.Uint16(packet[4:])), len(packet))], nil
	}
	return nil, errShort
}
