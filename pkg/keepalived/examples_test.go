package keepalived_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/config"
)

func TestKeepalivedsFileOfAnExampleBecomesTheExample(t *testing.T) {
	t.Parallel()
	const folder = "../../configs/examples"
	files, err := filepath.Glob(folder + "/keepalived/*.conf")
	if err != nil || len(files) != 10 {
		t.Fatalf("%d files (%v), want five pairs", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		result := held(t, map[string]string{"/etc/keepalived/keepalived.conf": string(text)})
		if result.Unsupported() > 0 {
			t.Errorf("%s: %v", file, result.Report())
		}
		got, err := config.Parse(file, result.YAML)
		if err != nil {
			t.Fatal(err)
		}
		want, err := config.Load(filepath.Join(folder, strings.TrimSuffix(filepath.Base(file), ".conf")+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s: the example, and what was converted:\n%s", file, diff)
		}
	}
}
