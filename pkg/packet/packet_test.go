package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	here  = [6]byte{2, 0, 0, 0, 0, 1}
	there = [6]byte{2, 0, 0, 0, 0, 2}
)

func packets() map[string]Packet {
	four := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	return map[string]Packet{
		"SYN 192.0.2.1:40000 > 10.0.0.100:80":             {Destination: here, Source: there, From: four("192.0.2.1:40000"), To: four("10.0.0.100:80"), Protocol: TCP, Flags: SYN},
		"FIN+ACK 192.0.2.1:40000 > 10.0.0.100:80":         {Destination: here, Source: there, From: four("192.0.2.1:40000"), To: four("10.0.0.100:80"), Protocol: TCP, Flags: FIN | ACK},
		"UDP 192.0.2.1:5353 > 10.0.0.100:53":              {Destination: here, Source: there, VLAN: 10, From: four("192.0.2.1:5353"), To: four("10.0.0.100:53"), Protocol: UDP},
		"RST [2001:db8:1::1]:40000 > [2001:db8::100]:443": {Destination: here, Source: there, From: four("[2001:db8:1::1]:40000"), To: four("[2001:db8::100]:443"), Protocol: TCP, Flags: RST},
		"UDP [2001:db8:1::1]:40000 > [2001:db8::100]:443": {Destination: here, Source: there, VLAN: 4094, From: four("[2001:db8:1::1]:40000"), To: four("[2001:db8::100]:443"), Protocol: UDP},
	}
}

func TestAFrameThatWasMadeReadsAsWhatItWasMadeOf(t *testing.T) {
	for text, p := range packets() {
		frame := p.Frame()
		got, err := Parse(frame)
		if err != nil || got != p || got.String() != text {
			t.Errorf("%x reads as %+v, %q (%v), want %+v, %q", frame, got, got.String(), err, p, text)
		}
		for n := range frame { // without its payload's checksum and what is behind it, it is whole
			if _, err := Parse(frame[:n]); err == nil && n < len(frame)-8 {
				t.Errorf("%s reads without error when cut to %d bytes", text, n)
			}
		}
		ip := frame[14:]
		if p.VLAN != 0 {
			ip = frame[18:]
		}
		header := 20
		if p.From.Addr().Is6() {
			header = 40
		} else if checksum(ip[:20], 0) != 0 {
			t.Errorf("%s: checksum of the IP header is wrong", text)
		}
		pseudo := append(append(p.From.Addr().AsSlice(), p.To.Addr().AsSlice()...), 0, p.Protocol, 0, byte(len(ip)-header))
		if checksum(ip[header:], onesSum(pseudo, 0)) != 0 {
			t.Errorf("%s: checksum is wrong", text)
		}
	}
}

func TestWhatWasWrittenIsRead(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789)
	want := []Record{
		{Time: at, Interface: "eth0", Length: 60, Data: []byte("0123456789abc")},
		{Time: at.Add(time.Second), Interface: "eth1", Length: 14, Data: []byte("0123456789abcd"), Comment: "drop (no_flow)"},
		{Time: at.Add(time.Minute), Interface: "eth0", Length: 4, Data: []byte("abcd")},
	}
	var file bytes.Buffer
	w, err := NewWriter(&file, "test")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range want {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Contains(file.Bytes(), []byte("drop (no_flow)")) {
		t.Error("the comment is not in the file")
	}
	whole := file.Bytes()
	got, err := readAll(whole)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		want[i].Comment = "" // who reads it is the reader of the file
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for n := range whole {
		if got, err := readAll(whole[:n]); err == nil && len(got) == len(want) {
			t.Errorf("cut to %d of %d bytes it reads without error", n, len(whole))
		}
	}
}

func readAll(file []byte) (list []Record, err error) {
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	for {
		record, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, record)
	}
}

func TestFilesOfOtherProgramsAreRead(t *testing.T) {
	const (
		little = "d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000 00f15365 40e20100 04000000 3c000000 61626364"
		big    = "a1b23c4d 0002 0004 00000000 00000000 00040000 00000001 6553f100 0001e240 00000004 0000003c 61626364"
		// pcapng in the other byte order, with an interface whose times are in 2^-10 seconds, and a block that nobody knows
		blocks = "0a0d0d0a 0000001c 1a2b3c4d 0001 0000 ffffffffffffffff 0000001c" +
			"00000bad 00000010 00000000 00000010" +
			"00000001 0000001c 0001 0000 00000000 0009 0001 8a000000 0000001c" +
			"00000006 00000024 00000000 00000195 4fc40200 00000004 0000003c 61626364 00000024"
		simple = "0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000" +
			"01000000 14000000 0100 0000 00000000 14000000" + "03000000 14000000 04000000 61626364 14000000"
	)
	for name, tt := range map[string]struct {
		file string
		want Record
	}{
		"pcap, microseconds":            {little, Record{Time: time.Unix(1_700_000_000, 123_456_000), Length: 60, Data: []byte("abcd")}},
		"pcap, nanoseconds, big-endian": {big, Record{Time: time.Unix(1_700_000_000, 123_456), Length: 60, Data: []byte("abcd")}},
		"pcapng, big-endian":            {blocks, Record{Time: time.Unix(1_700_000_000, 500_000_000), Length: 60, Data: []byte("abcd")}},
		"pcapng, a simple packet":       {simple, Record{Length: 4, Data: []byte("abcd")}},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := hex.DecodeString(strings.ReplaceAll(tt.file, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(file)
			if err != nil || len(got) != 1 {
				t.Fatalf("got %+v (%v)", got, err)
			}
			if !got[0].Time.Equal(tt.want.Time) || got[0].Length != tt.want.Length || !bytes.Equal(got[0].Data, tt.want.Data) {
				t.Errorf("got %+v (%v), want %+v", got[0], got[0].Time.UnixNano(), tt.want)
			}
		})
	}
}

func TestWhatIsNoFileOfFramesIsRefused(t *testing.T) {
	for name, tt := range map[string]struct{ file, want string }{
		"empty":             {"", "no pcap or pcapng file: unexpected EOF"},
		"text":              {"hello, world", "no pcap or pcapng file: it begins with 68 65 6c 6c"},
		"of interface any":  {"\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x71\x00\x00\x00", "link type 113"},
		"a frame too large": {"\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x01\x00\x00\x00" + strings.Repeat("\xff", 16), "a frame of 4294967295 bytes can't be"},
	} {
		if _, err := readAll([]byte(tt.file)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error is %v, want %s", name, err, tt.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	var file bytes.Buffer
	w, err := NewWriter(&file, "test")
	if err == nil {
		err = w.Write(Record{Interface: "eth0", Data: packets()["SYN 192.0.2.1:40000 > 10.0.0.100:80"].Frame(), Comment: "x"})
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, file []byte) {
		list, _ := readAll(file)
		for _, r := range list {
			p, _ := Parse(r.Data)
			_ = p.String()
		}
	})
}
