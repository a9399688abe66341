package web

import (
	"math"
	"strconv"
	"strings"
	"unicode"
)

// count writes a number of things: 7, 12,345, 1.23 M.
func count(n uint64) string {
	if n >= 1e6 {
		return short(float64(n))
	}
	text := strconv.FormatUint(n, 10)
	if n >= 1e3 {
		text = text[:len(text)-3] + "," + text[len(text)-3:]
	}
	return text
}

// perSecond writes a rate: 0, 0.5/s, 1.23 k/s, 9.9 Gbit/s, 1.2 k packets/s.
func perSecond(n float64, unit string) string {
	text := short(n)
	switch {
	case unit == "" && text == "0":
		return text
	case unit != "" && (unit != "bit" || !strings.Contains(text, " ")):
		text += " "
	}
	return text + unit + "/s"
}

// short writes three digits and a prefix.
func short(n float64) string {
	if n < 0.05 || math.IsNaN(n) {
		return "0"
	}
	prefix := ""
	for _, p := range []string{"k", "M", "G", "T", "P", "E"} {
		if n < 999.5 {
			break
		}
		n, prefix = n/1000, " "+p
	}
	digits := 0
	switch {
	case n < 9.995 && prefix != "":
		digits = 2
	case n < 9.95, n < 99.95 && prefix != "":
		digits = 1
	}
	text := strconv.FormatFloat(n, 'f', digits, 64)
	if prefix == "" {
		text = strings.TrimSuffix(text, ".0")
	}
	return text + prefix
}

// plain replaces what could reorder or hide text: names and reasons may hold bytes that another box has sent.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' {
			return r
		}
		return '?'
	}, text)
}
