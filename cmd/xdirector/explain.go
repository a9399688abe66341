package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdirector/xdirector/pkg/control"
	"github.com/xdirector/xdirector/pkg/packet"
	"github.com/xdirector/xdirector/pkg/status"
)

// explainFlags are those of explain.
type explainFlags struct {
	syn, ack, udp  bool
	iface, in, out string
}

func newExplain() *cobra.Command {
	var f explainFlags
	c := &cobra.Command{
		Use:   "explain CLIENT[:PORT] VIP:PORT [--syn|--ack|--udp] | explain --pcap IN [--out OUT]",
		Short: "Say what becomes of a packet: its real server, why that one, and the way there",
		Long: `Say what the director would do now with a packet of a client, and why: which real server gets it, by its known flow, by
persistence or by the schedule, and by which next hop; or why it is dropped. Nothing is changed and nothing is sent. A second
copy of the program that forwards is asked, which shares its tables and writes to none of them. Where a packet would take its
turn, the answer is what the next one gets.

With --pcap each packet of a capture is asked about, each for itself: a SYN in it makes no flow for those behind it. --out
writes those that would be sent, as they would be sent, each with the reason as its comment.

What only IPVS forwards is decided by the kernel: there a known connection is told, and else the scheduler's name.`,
		Args: func(_ *cobra.Command, args []string) error { return f.check(args) },
	}
	c.Flags().BoolVar(&f.syn, "syn", false, "TCP: the first packet of a connection (the default where there is such a service)")
	c.Flags().BoolVar(&f.ack, "ack", false, "TCP: one in the middle of a connection")
	c.Flags().BoolVar(&f.udp, "udp", false, "UDP")
	c.Flags().StringVar(&f.iface, "interface", "", "`NAME` of the interface that it comes in by (the one with the virtual address)")
	c.Flags().StringVar(&f.in, "pcap", "", "`FILE` of packets to ask about, pcap or pcapng; - is stdin")
	c.Flags().StringVar(&f.out, "out", "", "with --pcap: pcapng `FILE` for what would be sent; - is stdout")
	c.RunE = func(c *cobra.Command, args []string) error {
		if f.in != "" {
			return explainFile(c, f)
		}
		q, err := f.question(args)
		if err != nil {
			return err
		}
		return ask(c, func(ctx context.Context, client *control.Client) error {
			list, err := client.Explain(ctx, q)
			if err != nil {
				return err
			}
			if wantsJSON(c) {
				return printJSON(c.OutOrStdout(), list[0])
			}
			return list[0].Text(c.OutOrStdout())
		})
	}
	return c
}

// check finds wrong use.
func (f explainFlags) check(args []string) error {
	kinds := 0
	for _, set := range []bool{f.syn, f.ack, f.udp} {
		if set {
			kinds++
		}
	}
	switch {
	case f.in != "" && (len(args) > 0 || kinds > 0):
		return usageError{errors.New("explain takes CLIENT and VIP:PORT, or --pcap, not both")}
	case f.in != "":
		return nil
	case f.out != "":
		return usageError{errors.New("explain: --out goes with --pcap")}
	case len(args) != 2:
		return usageError{errors.New("explain needs a client and a virtual address with port: xdirector explain 192.0.2.1 192.168.5.100:80")}
	case kinds > 1:
		return usageError{errors.New("explain takes one of --syn, --ack and --udp")}
	}
	_, err := f.question(args)
	return err
}

func (f explainFlags) question(args []string) (q control.Question, err error) {
	q.Interface = f.iface
	for kind, set := range map[string]bool{"syn": f.syn, "ack": f.ack, "udp": f.udp} {
		if set {
			q.Kind = kind
		}
	}
	if q.From, err = netip.ParseAddrPort(args[0]); err != nil {
		address, err := netip.ParseAddr(strings.Trim(args[0], "[]"))
		if err != nil {
			return q, usageError{fmt.Errorf("explain: client %q: write an address, with a port or without: 192.0.2.1:40000 or [2001:db8::1]:40000", args[0])}
		}
		q.From = netip.AddrPortFrom(address, 0)
	}
	if q.To, err = netip.ParseAddrPort(args[1]); err != nil || q.To.Port() == 0 {
		return q, usageError{fmt.Errorf("explain: virtual address %q: write it with its port: 192.168.5.100:80 or [2001:db8::100]:80", args[1])}
	}
	return q, nil
}

// explainFile asks about each packet of a file.
func explainFile(c *cobra.Command, f explainFlags) error {
	in := io.NopCloser(c.InOrStdin())
	if f.in != "-" {
		var err error
		if in, err = os.Open(f.in); err != nil {
			return err
		}
	}
	defer in.Close()
	reader, err := packet.NewReader(in)
	if err != nil {
		return err
	}
	text, out := c.OutOrStdout(), io.Discard
	switch f.out {
	case "":
	case "-":
		text, out = io.Discard, text
	default:
		file, err := os.Create(f.out)
		if err != nil {
			return err
		}
		defer file.Close()
		out = file
	}
	writer, err := packet.NewWriter(out, "xdirector "+version)
	if err != nil {
		return err
	}
	r := report{text: text, json: wantsJSON(c), out: writer, verdicts: map[string]int{}}
	for done := false; !done; {
		var records []packet.Record
		if records, done, err = batch(reader); err != nil {
			return err
		}
		if len(records) == 0 {
			continue
		}
		q := control.Question{Interface: f.iface}
		for _, record := range records {
			q.Frames = append(q.Frames, record.Data)
		}
		if err := ask(c, func(ctx context.Context, client *control.Client) error {
			list, err := client.Explain(ctx, q)
			if err != nil {
				return err
			}
			return r.add(records, list)
		}); err != nil {
			return err
		}
	}
	fmt.Fprintln(c.ErrOrStderr(), r.sum())
	return nil
}

// batch reads as many packets as one question takes.
func batch(reader *packet.Reader) (records []packet.Record, done bool, err error) {
	for size := 0; size < control.FramesMax/4; {
		record, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return records, true, nil
		}
		if err != nil {
			return nil, false, err
		}
		records = append(records, record)
		size += len(record.Data) + 100
	}
	return records, false, nil
}

// report is what is told of a file of packets.
type report struct {
	text     io.Writer
	json     bool
	out      *packet.Writer
	packets  int
	sent     int
	verdicts map[string]int
}

// explainedPacket is what --json prints of a packet of a file, one on a line.
type explainedPacket struct {
	Number int `json:"number"` // in the file, from 1
	status.Explanation
}

func (r *report) add(records []packet.Record, list []status.Explanation) error {
	if len(list) != len(records) {
		return fmt.Errorf("asked about %d packets, got %d answers: are command and service of the same version? (xdirector version)", len(records), len(list))
	}
	for i, e := range list {
		r.packets++
		r.verdicts[e.Verdict]++
		if e.Sent() {
			r.sent++
			record := records[i]
			record.Length += len(e.Frame) - len(record.Data) // a VLAN tag
			record.Data, record.Comment = e.Frame, e.Answer+", "+e.Brief()
			if e.NextHop != nil {
				record.Interface = e.NextHop.Interface
			}
			if err := r.out.Write(record); err != nil {
				return err
			}
		}
		var err error
		if e.Frame = nil; r.json {
			err = json.NewEncoder(r.text).Encode(explainedPacket{r.packets, e})
		} else {
			_, err = fmt.Fprintf(r.text, "%d: %s, %s\n", r.packets, e.Answer, e.Brief())
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

func (r *report) sum() string {
	text := fmt.Sprintf("%d packets, of which %d would be sent", r.packets, r.sent)
	if n := r.verdicts["pass_other_mac"]; n > r.packets/2 {
		text += fmt.Sprintf("; %d are for another box's MAC address: was this captured elsewhere?", n)
	}
	return text
}
