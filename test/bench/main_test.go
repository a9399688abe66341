package main

import (
	"io"
	"os"
	"strings"
	"testing"
)

func TestFiguresAreComparedWithTheBareSwap(t *testing.T) {
	rows := summarize([]*benchCase{
		{name: swap, times: []float64{12, 10, 20}},
		{name: "case", times: []float64{30, 25, 60}, wanted: wanted{ns: 15, ratio: 2}},
		{name: "other", times: []float64{50, 45, 55}, wanted: wanted{of: "case", ratio: 1.6}},
	})
	want := row{
		Case: "case", Rounds: 3, Min: 25, Median: 30, NetMin: 15, NetMedian: 18, RatioMin: 2.5, Ratio: 2.5,
		WantedNet: 15, WantedRatio: 2, Met: "ns at its best",
	}
	if rows[1] != want {
		t.Errorf("%+v, want %+v", rows[1], want)
	}
	if rows[2].Met != "no" {
		t.Errorf("a case of 50 ns beside one of 30, wanted 1.6 times that: met %q, want no", rows[2].Met)
	}
	var table strings.Builder
	if err := (report{Packets: rows}).print(&table, false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), "2.50x") {
		t.Errorf("the table lacks the ratio:\n%s", table.String())
	}
}

// measure fails by itself if packets don't go the way that their case is about.
func TestEachCaseMeasuresWhatItSays(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("LAB") == "1" {
			t.Fatal("LAB=1 needs root")
		}
		t.Skip("not root")
	}
	var r report
	if err := r.measurePackets(1, 2000); err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Packets {
		if row.Min == 0 { // below it is noise, of so few packets
			t.Errorf("%s was not measured", row.Case)
		}
	}
}

func TestWrongUseIsRefused(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-packets", "0"}, {"-only", "nothing"}} {
		if err := run(args, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
