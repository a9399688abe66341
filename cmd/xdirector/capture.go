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
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/vrrp"
	"github.com/xdirector/xdirector/pkg/xdp"
)

func newCapture() *cobra.Command {
	var adverts bool
	var count int
	c := &cobra.Command{
		Use:   "capture --vrrp",
		Short: "Show the VRRP adverts that reach the XDP programs, absorbed and dropped ones too",
		Long: `Show each VRRP advert that reaches the XDP programs of the director, and what became of it: passed to the election,
absorbed, or dropped and why. tcpdump sees only those that pass. It ends by Ctrl-C, or after --count adverts.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if !adverts {
				return usageError{errors.New("capture needs --vrrp")}
			}
			return capture(c, count)
		},
	}
	c.Flags().BoolVar(&adverts, "vrrp", false, "VRRP adverts")
	c.Flags().IntVar(&count, "count", 0, "end after this `NUMBER` of adverts; 0: never")
	return c
}

func capture(c *cobra.Command, count int) error {
	cfg, err := config.Load(configFile(c))
	if err != nil {
		return showProblems(err, c.ErrOrStderr())
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	out, asJSON, shown := c.OutOrStdout(), wantsJSON(c), 0
	_, err = xdp.Capture(ctx, cfg.Dataplane.PinPath, xdp.Watch{Adverts: true}, func(advert xdp.Captured) error {
		if err := show(out, asJSON, seenOf(advert)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if shown++; shown == count {
			cancel()
		}
		return nil
	})
	return err
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
	s := seen{Time: c.Time, Interface: fmt.Sprintf("interface %d", c.Interface), Fate: c.Fate}
	if i, err := net.InterfaceByIndex(c.Interface); err == nil {
		s.Interface = i.Name
	}
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
