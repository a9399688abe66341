package e2e

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// otherVersion is the program with another version string.
func otherVersion(t *testing.T, c *cluster) []byte {
	t.Helper()
	binary, err := os.ReadFile(c.d[0].Binary())
	c.ok(err)
	s, err := c.d[0].Status(t.Context())
	c.ok(err)
	now := []byte(s.Version)
	other := append(bytes.Clone(now[:len(now)-1]), '+')
	if len(now) < 4 || bytes.Count(binary, now) == 0 {
		t.Fatalf("version %q is not in the binary", now)
	}
	return bytes.ReplaceAll(binary, now, other)
}

// One connection, through everything that operators do and much that befalls them.
func TestDownloadGoesOnByteForByte(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		c := newCluster(t, plane, 1, 3)
		d := c.d[0]
		c.ok(d.Install(nil))
		all := c.service()
		all.Check = patientCheck
		two := all
		two.RealServers = all.RealServers[:2]
		c.start(two)
		conn, server := c.connect()
		other := slices.DeleteFunc([]string{"r1", "r2", "r3"}, func(name string) bool { return name == server })[0]
		newer := otherVersion(t, c)

		want, err := c.lab.OfferDownload()
		c.ok(err)
		c.ok(conn.SetDeadline(time.Now().Add(4 * patience)))
		_, err = io.WriteString(conn, "GET /download HTTP/1.1\r\nHost: web\r\n\r\n")
		c.ok(err)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		c.ok(err)
		defer answer.Body.Close()
		var got []byte
		read := func() {
			t.Helper()
			part := make([]byte, len(want)/16)
			_, err := io.ReadFull(answer.Body, part)
			c.ok(err)
			got = append(got, part...)
		}

		read()
		c.ok(d.Configure(c.config(0, all))) // a real server more
		c.ok(d.Reload(t.Context()))
		read()
		_, err = d.Command("drain", "web/"+c.address(server).String())
		c.ok(err)
		read()
		_, err = d.Signal(lab.Agent, syscall.SIGKILL)
		c.ok(err)
		c.restarted(d, lab.Agent, 1)
		c.ready(d, 2)
		read()
		c.ok(d.Install(newer))
		_, err = d.Signal(lab.Supervisor, syscall.SIGUSR2)
		c.ok(err)
		c.ok(d.Process().WaitLog(t.Context(), patience, "msg=upgraded", 1))
		c.ready(d, 3)
		if s, err := d.Status(t.Context()); err != nil || !strings.HasSuffix(s.Version, "+") {
			t.Errorf("version %q after the upgrade (%v)", s.Version, err)
		}
		read()
		less := all // without one that has nothing to do with it
		less.RealServers = slices.DeleteFunc(slices.Clone(all.RealServers), func(r lab.RealServer) bool { return r.Address == c.address(other) })
		c.ok(d.Configure(c.config(0, less)))
		c.ok(d.Reload(t.Context()))
		rest, err := io.ReadAll(answer.Body)
		c.ok(err)
		if got = append(got, rest...); !bytes.Equal(got, want) {
			t.Errorf("%d bytes came, of which the first are %d, want %d", len(got), commonPrefix(got, want), len(want))
		}
	})
}

func commonPrefix(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
