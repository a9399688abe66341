package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/xdirector/xdirector/test/lab"
)

// forward makes the metrics listener of a director reachable from here, as ssh -L does, and returns its address.
func (c *cluster) forward(d *lab.Director) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	c.ok(err)
	c.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := d.Dial(c.t.Context(), "tcp", "127.0.0.1:9112")
			if err != nil {
				here.Close()
				continue
			}
			for _, ends := range [][2]net.Conn{{here, there}, {there, here}} {
				go func() {
					io.Copy(ends[0], ends[1])
					ends[0].Close()
					ends[1].Close()
				}()
			}
		}
	}()
	return "http://" + l.Addr().String() + "/"
}

// seeStatusPage looks at the status page of the first director with a browser, and then overruns it.
func seeStatusPage(c *cluster) {
	c.t.Helper()
	site := c.forward(c.d[0])
	browser, err := lab.StartBrowser(c.t.TempDir())
	c.ok(err)
	defer browser.Close()
	tab, err := browser.Open(site, lab.Window{Width: 360})
	c.ok(err)
	for _, fact := range []string{
		`document.getElementById('stream').textContent === 'live'`,
		`document.querySelector('#instances [data-key=VI_1] td.state').textContent === 'MASTER'`,
		`document.querySelector('#facts').textContent.includes('xdp-native')`,
		`document.querySelector('#events').textContent.includes('VI_1 is MASTER, was BACKUP')`,
		`document.querySelectorAll('#services [data-key=web] tr.server.up td.curve path').length === 4`,
		`document.documentElement.scrollWidth <= document.documentElement.clientWidth`,
	} {
		c.ok(tab.Wait(c.t.Context(), patience, fact))
	}
	c.ok(lab.Wait(c.t.Context(), patience, func() error {
		c.get(web, 5)
		var rate string
		if err := tab.Eval(`document.querySelector('#services [data-key=web] tr.service td[data-label=Packets]').textContent`, &rate); err != nil {
			return err
		}
		if !strings.HasSuffix(rate, "/s") {
			return fmt.Errorf("the page shows %s packets/s", rate)
		}
		return nil
	}))
	if folder := os.Getenv("XDIRECTOR_SCREENSHOTS"); folder != "" {
		shot, err := tab.Screenshot()
		c.ok(err)
		c.ok(os.WriteFile(filepath.Join(folder, "lab.png"), shot, 0o644))
	}
	for _, problem := range tab.Problems() {
		c.t.Error(problem)
	}

	// As many viewers as there may be, and more, take nothing from those who scrape.
	served, refused := 0, 0
	for range 40 {
		r, err := http.Get(site + "live")
		c.ok(err)
		defer r.Body.Close()
		if r.StatusCode == http.StatusOK {
			served++
		} else if r.StatusCode == http.StatusServiceUnavailable {
			refused++
		}
	}
	if served != 31 || refused != 9 {
		c.t.Errorf("of 40 more viewers %d are served and %d refused, want 31 and 9", served, refused)
	}
	for _, path := range []string{"/metrics", "/healthz", "/"} {
		if code, _, err := scrape(c.d[0], path); err != nil || code != http.StatusOK {
			c.t.Errorf("with 32 viewers %s is %d, %v", path, code, err)
		}
	}
	for what, header := range map[string]string{"431 ": "X-Huge: " + strings.Repeat("x", 1<<20), "421 ": "Host: evil.example", "400 ": "Host: localhost\r\nHost: localhost"} {
		conn, err := c.d[0].Dial(c.t.Context(), "tcp", "127.0.0.1:9112")
		c.ok(err)
		defer conn.Close()
		go fmt.Fprintf(conn, "GET / HTTP/1.1\r\n%s\r\n\r\n", header)
		if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, what) {
			c.t.Errorf("a header that deserves %sgets %q, %v", what, line, err)
		}
	}
}
