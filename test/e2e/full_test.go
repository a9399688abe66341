package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/status"
	"github.com/xdirector/xdirector/test/lab"
)

// The disk of state_dir is full to the last page, while everything happens that is recorded there.
func TestFullDiskIsToldOnceAndStopsNothing(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 2)
		d := c.d[0]
		dir := filepath.Join(d.Dir, "state")
		c.ok(os.MkdirAll(dir, 0o755))
		c.ok(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"))
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		c.start(c.service())
		fill := filepath.Join(dir, "fill")
		f, err := os.Create(fill)
		c.ok(err)
		for err == nil {
			_, err = f.Write(make([]byte, 512))
		}
		f.Close()

		c.servers[1].Kill()
		c.waitUp(d, 1, false)
		_, err = d.Command("drain", "web/"+c.lab.RealServers[1].Address.String())
		c.ok(err)
		c.get(web, 4)
		for _, step := range [][]string{{"failover", "VI_1"}, {"failover", "VI_1", "--off"}} {
			_, err = d.Command(step...)
			c.ok(err)
		}
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		c.get(web, 4)
		for _, told := range []string{"the health of real servers could not be recorded", "a wish of an operator could not be recorded"} {
			if n := strings.Count(d.Log(), told); n != 1 {
				t.Errorf("%q is told %d times", told, n)
			}
		}

		c.ok(os.Remove(fill))
		c.ok(d.Process().WaitLog(t.Context(), patience, "a record that could not be written is up to date again", 2))
		c.killAgent(d)
		c.ok(d.WaitStatus(t.Context(), patience, func(s *status.Status) error {
			if r := s.Services[0].RealServers[1]; r.Up || len(s.Overrides) != 1 {
				return fmt.Errorf("after a restart: up %v, overrides %v", r.Up, s.Overrides)
			}
			return nil
		}))
	})
}

// Nobody reads the pipe that the log is written to.
func TestBlockedLogStopsNothing(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 2, 2)
		d := c.d[0]
		path := filepath.Join(d.Dir, "xdirector.log")
		c.ok(unix.Mkfifo(path, 0o600))
		pipe, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		c.ok(err)
		t.Cleanup(func() { // before anybody reads the log as a file
			pipe.Close()
			os.Remove(path)
		})
		for err == nil { // it is full from the first line on
			_, err = unix.Write(int(pipe.Fd()), make([]byte, 4096))
		}
		c.start(c.service())
		c.get(web, 4)
		c.servers[1].Kill()
		c.waitUp(d, 1, false)
		c.get(web, 4)
		for _, step := range [][]string{{"reload"}, {"failover", "VI_1"}, {"failover", "VI_1", "--off"}} {
			_, err := d.Command(step...)
			c.ok(err)
		}
		c.ok(d.WaitState(t.Context(), "VI_1", "MASTER", patience))
		c.killAgent(d)
		c.get(web, 4)

		// What was said is written when somebody reads, but for the lines of who was killed.
		var log strings.Builder
		said := func() error {
			part := make([]byte, 64<<10)
			n, _ := unix.Read(int(pipe.Fd()), part)
			log.Write(part[:max(0, n)])
			for _, line := range []string{"state changed", "the agent has ended: started again", "msg=ready"} {
				if !strings.Contains(log.String(), line) {
					return fmt.Errorf("the log has no %q in %s", line, strings.Trim(log.String(), "\x00"))
				}
			}
			return nil
		}
		c.ok(lab.Wait(t.Context(), patience, said))
		for n := 0; err == nil || n == 0; n++ {
			_, err = unix.Write(int(pipe.Fd()), make([]byte, 4096))
		}
		c.ok(d.Stop())
	})
}
