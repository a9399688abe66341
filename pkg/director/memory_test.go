package director

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/health"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/statefile"
)

func forTest(t *testing.T, dir string) *Director {
	t.Helper()
	cfg := oneService()
	cfg.StateDir = dir
	for i := range cfg.Services[0].RealServers {
		cfg.Services[0].RealServers[i].Check = &health.Check{Kind: health.TCP}
	}
	return &Director{log: slog.New(slog.NewTextHandler(testLog{t}, nil)), cfg: cfg, servers: map[lb.ServerKey]*server{}}
}

// testLog shows the log of a test that fails.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func TestARestartRemembersWhichRealServersWereDown(t *testing.T) {
	dir := t.TempDir()
	before := forTest(t, dir)
	before.targets(before.cfg)
	dead := before.servers[lb.ServerKey{Service: web, Address: other}]
	dead.up, dead.reason = false, "connect: connection refused"
	before.remember()

	after := forTest(t, dir)
	after.recall()
	if waited := after.answering(); len(waited) != 1 || waited[0] != first {
		t.Errorf("the start waits for the next hops of %v, want only %s: the other one is dead", waited, first)
	}
	after.targets(after.cfg)
	for address, want := range map[string]bool{first.String(): true, other.String(): false} {
		for key, s := range after.servers {
			if key.Address.String() == address && s.up != want {
				t.Errorf("real server %s: up %v, want %v", address, s.up, want)
			}
		}
	}
	if len(after.servers) != 2 {
		t.Errorf("%d real servers, want 2", len(after.servers))
	}
	if got := after.servers[lb.ServerKey{Service: web, Address: other}].reason; got != "connect: connection refused" {
		t.Errorf("reason %q", got)
	}
}

func TestMemoryOfAnotherBootOrACleanStopIsAFreshStart(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *Director){
		"another boot": func(t *testing.T, d *Director) {
			boot, err := statefile.BootID()
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(d.memoryFile())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(d.memoryFile(), []byte(strings.ReplaceAll(string(data), boot, "another")), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"half a file": func(t *testing.T, d *Director) {
			if err := os.WriteFile(d.memoryFile(), []byte(`{"boot_id": `), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"clean stop": func(_ *testing.T, d *Director) { d.forget() },
	} {
		t.Run(name, func(t *testing.T) {
			d := forTest(t, t.TempDir())
			d.targets(d.cfg)
			d.servers[lb.ServerKey{Service: web, Address: other}].up = false
			d.remember()
			spoil(t, d)
			next := forTest(t, d.cfg.StateDir)
			next.recall()
			next.targets(next.cfg)
			if !next.servers[lb.ServerKey{Service: web, Address: other}].up {
				t.Error("the real server still counts as down")
			}
		})
	}
}
