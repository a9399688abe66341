package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// row is what one case took, in nanoseconds per packet.
type row struct {
	Case        string  `json:"case"`
	Rounds      int     `json:"rounds"`
	Min         float64 `json:"min_ns"`
	Median      float64 `json:"median_ns"`
	NetMin      float64 `json:"net_min_ns"` // less the bare swap
	NetMedian   float64 `json:"net_median_ns"`
	RatioMin    float64 `json:"ratio_min"` // to the bare swap
	Ratio       float64 `json:"ratio_median"`
	WantedNet   float64 `json:"wanted_net_ns,omitempty"`
	WantedRatio float64 `json:"wanted_ratio,omitempty"`
	WantedOf    string  `json:"wanted_ratio_to,omitempty"` // a case; empty: the bare swap
	Met         string  `json:"met,omitempty"`
}

// figure is anything else that was measured.
type figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Wanted string  `json:"wanted,omitempty"`
	Met    string  `json:"met,omitempty"`
}

// report is what a run found.
type report struct {
	Packets []row    `json:"packets,omitempty"`
	Scale   []row    `json:"scale,omitempty"`
	Figures []figure `json:"figures,omitempty"`
}

// summarize expects the bare swap first.
func summarize(cases []*benchCase) []row {
	var rows []row
	byName := map[string]*benchCase{swap: cases[0]}
	for _, c := range cases {
		byName[c.name] = c
	}
	for _, c := range cases {
		r := row{Case: c.name, Rounds: len(c.times), Min: c.least(), Median: c.median()}
		r.NetMin, r.NetMedian = r.Min-cases[0].least(), r.Median-cases[0].median()
		r.RatioMin, r.Ratio = r.Min/cases[0].least(), r.Median/cases[0].median()
		if c.wanted.ratio > 0 {
			of := byName[swap]
			if c.wanted.of != "" {
				of = byName[c.wanted.of]
			}
			r.WantedNet, r.WantedRatio, r.WantedOf = c.wanted.ns, c.wanted.ratio, c.wanted.of
			r.Met = c.wanted.met(r.NetMedian, r.Median/of.median())
			if best := c.wanted.met(r.NetMin, r.Min/of.least()); r.Met == "no" && best != "no" {
				r.Met = best + " at its best"
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// met says which of the two bars a case is below.
func (w wanted) met(net, ratio float64) string {
	switch ns, relative := net <= w.ns, ratio <= w.ratio; {
	case w.of != "" && relative:
		return "yes"
	case ns && relative:
		return "yes"
	case ns:
		return "ns"
	case relative:
		return "ratio"
	}
	return "no"
}

func yes(met bool) string {
	if met {
		return "yes"
	}
	return "no"
}

func (r report) print(out io.Writer, asJSON bool) error {
	if err := printRows(out, "ns per packet", r.Packets); err != nil {
		return err
	}
	if err := printRows(out, "ns per packet, by size", r.Scale); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range r.Figures {
		fmt.Fprintf(w, "%s\t%.4g %s\t%s\t%s\t\n", f.Name, f.Value, f.Unit, f.Wanted, f.Met)
	}
	if err := w.Flush(); err != nil || !asJSON {
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

func printRows(out io.Writer, title string, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\tmin\tmedian\tnet min\tnet median\tto swap\twanted net\tor ratio\tmet\t\n", title)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.2fx\t", r.Case, r.Min, r.Median, r.NetMin, r.NetMedian, r.Ratio)
		switch {
		case r.WantedOf != "":
			fmt.Fprintf(w, "\t%.1fx of %s\t%s\t\n", r.WantedRatio, r.WantedOf, r.Met)
		case r.WantedRatio > 0:
			fmt.Fprintf(w, "%.0f\t%.1fx\t%s\t\n", r.WantedNet, r.WantedRatio, r.Met)
		default:
			fmt.Fprint(w, "\t\t\t\n")
		}
	}
	fmt.Fprintln(w)
	return w.Flush()
}
