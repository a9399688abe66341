package ha

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/vrrp"
)

// keepalived starts a live keepalived in the box; the function returned ends it as an operator would.
func (b *box) keepalived(instance string) (stop func()) {
	b.t.Helper()
	dir := b.t.TempDir()
	file := filepath.Join(dir, "keepalived.conf")
	must(b.t, os.WriteFile(file, []byte("global_defs {\n router_id peer\n}\nvrrp_instance VI_1 {\n"+instance+"}\n"), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	must(b.t, err)
	defer log.Close()
	cmd := exec.Command("ip", "netns", "exec", b.name, "keepalived", "-n", "-l", "-D", "-P", "-f", file,
		"-p", filepath.Join(dir, "pid"), "-r", filepath.Join(dir, "vrrp.pid"))
	cmd.Stdout, cmd.Stderr = log, log
	must(b.t, cmd.Start())
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		_ = cmd.Process.Signal(unix.SIGTERM) // already ended: Wait tells
		if err := cmd.Wait(); err != nil {
			b.t.Errorf("keepalived: %v", err)
		}
		if b.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			b.t.Logf("log of keepalived:\n%s", text)
		}
	}
	b.t.Cleanup(stop)
	return stop
}

func TestLiveKeepalivedSharesTheVirtualRouterInBothRoles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		vrrp       vrrp.Config
	}{
		{"version 2 with password", "version 2\nadvert_int 1\nauthentication {\nauth_type PASS\nauth_pass 1111\n}\n",
			vrrp.Config{Version: 2, Interval: time.Second, Password: "1111"}},
		{"version 3 with adverts of 100 ms", "version 3\nadvert_int 0.1\n",
			vrrp.Config{Version: 3, Interval: 100 * time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := twoBoxes(t)
			text := fmt.Sprintf("state BACKUP\ninterface eth0\nvirtual_router_id 51\npriority 150\nvirtual_ipaddress {\n%s\n}\n%s", vip1, c.text)
			i := fast(100, vip1)
			i.VRRP.Version, i.VRRP.Interval, i.VRRP.Password = c.vrrp.Version, c.vrrp.Interval, c.vrrp.Password

			stop := b.keepalived(text)
			eventually(t, "keepalived MASTER", func() bool { return b.has(vip1.String()) })
			cfg := config(t, i)
			r := a.start(cfg)
			r.report("keepalived heard", func(rep Report) bool {
				return rep.Instances[0].State == vrrp.Backup && rep.Instances[0].MasterPriority == 150
			})

			// keepalived stops: priority 0.
			stop()
			if rep := r.state(vrrp.Master); rep.Reason != "10.9.0.2 gives up being MASTER (priority 0)" {
				t.Errorf("reason %q", rep.Reason)
			}
			eventually(t, "address taken over", func() bool { return a.has(vip1.String()) && !b.has(vip1.String()) })

			// It comes back and preempts.
			b.keepalived(text)
			if rep := r.state(vrrp.Backup); rep.Reason != "10.9.0.2 has the higher priority 150, ours is 100" {
				t.Errorf("reason %q", rep.Reason)
			}
			eventually(t, "address given back", func() bool { return !a.has(vip1.String()) && b.has(vip1.String()) })

			// We preempt.
			i.VRRP.Priority = 200
			cfg.Instances = []Instance{i}
			r.Configure(cfg)
			r.state(vrrp.Master)
			eventually(t, "address taken", func() bool { return a.has(vip1.String()) && !b.has(vip1.String()) })

			// We stop.
			r.Stop()
			r.stopped()
			rep := r.last.Instances[0]
			if rep.Reason != "stopped" || !b.has(vip1.String()) || a.has(vip1.String()) {
				t.Errorf("after Stop: %+v", rep)
			}
			if len(rep.AdvertsRefused) != 0 || len(rep.Mismatches) != 0 {
				t.Errorf("refused %v, mismatches %v", rep.AdvertsRefused, rep.Mismatches)
			}
		})
	}
}
