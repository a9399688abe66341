package main

import (
	"os"
	"strings"
	"testing"
)

func TestFiguresAreComparedWithTheBareProgram(t *testing.T) {
	results := summarize([]string{"bare", "case"}, [][]int64{{12, 10, 20}, {30, 25, 60}})
	want := result{Case: "case", Rounds: 3, Min: 25, Median: 30, NetMin: 15, NetMedian: 18, Ratio: 2.5}
	if results[1] != want {
		t.Errorf("%+v, want %+v", results[1], want)
	}
	var table strings.Builder
	if err := printTable(&table, results); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), "2.5x") {
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
	results, err := measure(2, 2000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(cases()) {
		t.Errorf("%d results, want one for each of %d cases", len(results), len(cases()))
	}
}

func TestWrongUseIsRefused(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-repeat", "0"}} {
		if err := run(args, os.Stderr); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
