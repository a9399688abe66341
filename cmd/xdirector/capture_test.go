package main

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/xdp"
)

func TestCapturedAdvertsAreReadableOrSayWhyNot(t *testing.T) {
	const (
		ethernet = "01005e000012" + "0200000000aa" + "0800"
		ip       = "45c0002800010000ff70d0880a090001e0000012"
		v2       = "2133640101010cfb" + "0a090064" + "3131313100000000"
		begins   = "12:00:00.000000 interface 0 02:00:00:00:00:aa 10.9.0.1 > 224.0.0.18, "
		v2Text   = "version 2, VRID 51, priority 100, every 1s, TTL 255, for 10.9.0.100: "
	)
	for name, tt := range map[string]struct {
		frame, fate string
		ours        bool
		length      int // of the whole frame; 0: all of it was captured
		want        string
	}{
		"version 2":                    {ethernet + ip + v2, "absorbed", true, 0, begins + v2Text + "absorbed\n"},
		"with a VLAN tag":              {ethernet[:24] + "8100000a0800" + ip + v2, "passed", true, 0, begins + v2Text + "passed\n"},
		"of somebody else":             {ethernet + ip + v2, "passed", false, 0, begins + v2Text + "passed, for no virtual router of ours\n"},
		"with a padding of Ethernet":   {ethernet + ip + v2 + "000000000000", "passed", true, 0, begins + v2Text + "passed\n"},
		"with a wrong checksum":        {ethernet + ip + "2133640101010cff" + v2[16:], "checksum", true, 0, begins + "VRID 51, TTL 255: parse advert: "},
		"longer than what is captured": {ethernet + ip + v2[:20], "passed", true, 100, begins + "VRID 51, TTL 255: too long to be read from its first 44 bytes: passed\n"},
		"with a broken header":         {ethernet + "4f" + ip[2:] + v2[:8], "header", true, 0, begins + "VRID 0, TTL 255: its IP header is broken: header\n"},
		"cut short":                    {ethernet[:20], "header", true, 0, "12:00:00.000000 interface 0  invalid IP > invalid IP, VRID 0, TTL 0: the frame is cut short: header\n"},
		"version 3, IPv6":              {"333300000012" + "0200000000aa" + "86dd" + "6c00000000" + "18" + "70ff" + "fe80000000000000" + "0000000000000001" + "ff02000000000000" + "0000000000000012" + "313d640100641a62" + "fe80000000000000" + "0000000000000100", "passed", true, 0, "12:00:00.000000 interface 0 02:00:00:00:00:aa fe80::1 > ff02::12, "},
	} {
		t.Run(name, func(t *testing.T) {
			frame, err := hex.DecodeString(tt.frame)
			if err != nil {
				t.Fatal(err)
			}
			c := xdp.Captured{Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Ours: tt.ours, Fate: tt.fate, Length: max(tt.length, len(frame)), Frame: frame}
			var out bytes.Buffer
			if err := show(&out, false, seenOf(c)); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); !strings.HasPrefix(got, tt.want) || strings.HasSuffix(tt.want, "\n") && got != tt.want {
				t.Errorf("got  %swant %s", got, tt.want)
			}
		})
	}
}
