package keepalived_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestConvertsAsTheGoldenFilesSay has one small file for each construct, and a corpus of whole ones. Beside NAME.conf, NAME.golden
// holds the report and the output.
func TestConvertsAsTheGoldenFilesSay(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/*/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	part, err := os.ReadFile("testdata/construct/parts/a.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".conf"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			result := held(t, map[string]string{"/etc/keepalived/keepalived.conf": string(text), "/etc/keepalived/parts/a.conf": string(part)})
			var got strings.Builder
			for _, l := range result.Report() {
				fmt.Fprintln(&got, strings.TrimPrefix(l.String(), "/etc/keepalived/"))
			}
			got.WriteString("---\n")
			got.Write(result.YAML)
			golden := strings.TrimSuffix(name, ".conf") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("%s (-golden +now; look at the difference, then go test -update)\n%s", name, diff)
			}
		})
	}
}
