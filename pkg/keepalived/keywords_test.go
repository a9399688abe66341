package keepalived

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestEveryKeywordOfTheManualIsKnown(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/keywords.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(text)) {
		place, keywords, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if place == "-" {
			place = atRoot
		}
		for _, k := range strings.Fields(keywords) {
			seen++
			_, ruled := rules(place)[k]
			if code := slices.Contains(converted(place), k); ruled == code && place != atScript && place != atFile && place != atProcess {
				t.Errorf("%s in %s: in the rules: %v, converted: %v; want one of them", k, place, ruled, code)
			} else if !ruled && !code && !slices.Contains(converted(atScript), k) {
				t.Errorf("%s in %s is not known", k, place)
			}
		}
	}
	if seen < 300 {
		t.Errorf("%d keywords in the list; the manual has more", seen)
	}
}

func TestReasonsSayWhatToDoOrWhatIsDoneInOneLine(t *testing.T) {
	t.Parallel()
	for _, place := range []string{atRoot, atGlobal, atInstance, atGroup, atScript, atServer, atReal, atCheck, atURL} {
		for k, r := range rules(place) {
			if len(r.reason) < 15 || strings.ContainsAny(r.reason, "\n") || strings.HasSuffix(r.reason, ".") || r.outcome != NotNeeded && r.outcome != Unsupported {
				t.Errorf("%s in %s: %s: %q", k, place, r.outcome, r.reason)
			}
		}
	}
}
