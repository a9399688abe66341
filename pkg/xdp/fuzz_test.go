package xdp

import (
	"slices"
	"testing"
)

// FuzzFrame gives a frame to the program and to the model of it.
func FuzzFrame(f *testing.F) {
	b := newPair(f, steady(tableState()))
	for _, row := range slices.Concat(packetTable, vlanTable, rareTable) {
		f.Add(row.packet.bytes())
	}
	tried := 0
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 1500 {
			return // the kernel doesn't run a program on those
		}
		if tried++; tried%10_000 == 0 {
			forget(t, b.p)
			b.m.forget()
		}
		if err := b.try(frame); err != nil {
			t.Fatal(err)
		}
	})
}
