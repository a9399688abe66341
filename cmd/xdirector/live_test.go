package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/status"
)

// flowing is a director with two services, in which each look finds the counters of another second.
func flowing() *obedient {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	o := &obedient{}
	for n := range uint64(100) {
		o.overrides = append(o.overrides, status.Status{
			RouterID: "lb1", Healthy: true, Reload: status.Reload{Success: true}, Measured: at.Add(time.Duration(n) * time.Second), Plane: status.Plane{Name: "xdp-native"},
			Instances: []status.Instance{{Name: "VI_1", State: "MASTER"}},
			Services: []status.Service{
				{Name: "dns", Address: "192.168.5.101", Port: 53, Protocol: "udp", Scheduler: "rr", Plane: status.Plane{Name: "xdp-native"}, Quorum: status.Quorum{Up: true}, RealServers: []status.RealServer{
					{Address: "192.168.5.103", Port: 53, Up: true, Packets: 5 * n, Bytes: 1500 * n, Flows: 2}}},
				{Name: "web", Address: "192.168.5.100", Port: 80, Protocol: "tcp", Scheduler: "rr", Plane: status.Plane{Name: "xdp-native"}, Quorum: status.Quorum{Up: true}, RealServers: []status.RealServer{
					{Address: "192.168.5.103", Port: 80, Up: true, Packets: 1000 * n, Bytes: 64000 * n, FlowsCreated: n, Flows: 7, Active: 5},
					{Address: "192.168.5.104", Port: 80, Packets: 20000 * n, Bytes: 1234567 * n, FlowsCreated: n, Flows: 3, Active: 3}}},
			},
		})
	}
	return o
}

func TestTopShowsTheBusiestFirst(t *testing.T) {
	t.Parallel()
	const head = `Service                Packets/s    Bytes/s  NewFlows/s      Flows     Active
all                        21.0k       1.3M           2         12          8
`
	for args, want := range map[string]string{
		"top --once": "Director lb1, xdp-native, services by packets, over 1.0 s\n\n" + head +
			`web 192.168.5.100:80       21.0k       1.3M           2         10          8
  -> 192.168.5.104:80      20.0k       1.2M           1          3          3
  -> 192.168.5.103:80       1000      64.0k           1          7          5
dns 192.168.5.101:53           5       1500           0          2          0
  -> 192.168.5.103:53          5       1500           0          2          0
`,
		"top --once --sort name": "Director lb1, xdp-native, services by name, over 1.0 s\n\n" + head +
			`dns 192.168.5.101:53           5       1500           0          2          0
  -> 192.168.5.103:53          5       1500           0          2          0
web 192.168.5.100:80       21.0k       1.3M           2         10          8
  -> 192.168.5.103:80       1000      64.0k           1          7          5
  -> 192.168.5.104:80      20.0k       1.2M           1          3          3
`,
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := command(t, append(strings.Fields(args), "--config", serveDirector(t, flowing()))...)
			if code != 0 || stdout != want || stderr != "" {
				t.Errorf("exit code %d, stderr %q,\n%swant\n%s", code, stderr, stdout, want)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		t.Parallel()
		_, stdout, _ := command(t, "top", "--once", "--json", "--sort", "flows", "web", "--config", serveDirector(t, flowing()))
		var got load
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || got.Seconds != 1 || len(got.Services) != 1 || got.Services[0].RealServers[0].Packets != 1000 || got.All.Bytes != 1298567 {
			t.Errorf("%+v (%v)", got, err)
		}
	})
}

func TestNumbersOfAnySizeFitTheirColumn(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 0.04: "0.0", 0.5: "0.5", 9: "9", 9.96: "10.0", 12.4: "12", 9999: "9999", 9999.6: "10.0k", 123456: "123.5k", 999949: "999.9k", 999951: "1.0M", 1.5e9: "1.5G", 2e15: "2000T"} {
		if got := short(n); got != want {
			t.Errorf("%v is %s, want %s", n, got, want)
		}
	}
}

func TestStatusShowsOnlyWhatIsNamed(t *testing.T) {
	t.Parallel()
	file := serveDirector(t, flowing())
	code, stdout, stderr := command(t, "status", "d*", "--config", file)
	if code != 0 || !strings.Contains(stdout, "UDP  192.168.5.101:53 rr (dns, xdp-native)") || strings.Contains(stdout, "web") || strings.Contains(stdout, "VI_1") || stderr != "" {
		t.Errorf("exit code %d, stderr %q:\n%s", code, stderr, stdout)
	}
	code, stdout, stderr = command(t, "status", "dns", "wbe", "--config", file)
	if code != 1 || stdout != "" || stderr != "xdirector: no instance, service or address \"wbe\" is configured here: xdirector status shows what is\n" {
		t.Errorf("a name misspelt: exit code %d, %q, stderr %q", code, stdout, stderr)
	}
}

func TestColoursAreForTerminalsAlone(t *testing.T) {
	on, off := newPaint(true), newPaint(false)
	for _, tt := range []struct{ line, want string }{
		{"VI_1  MASTER  2s", "VI_1  \x1b[32mMASTER\x1b[0m  2s"},
		{"  -> 10.0.0.1:80  DOWN 5s: x", "  -> 10.0.0.1:80  \x1b[31mDOWN\x1b[0m 5s: x"},
		{"warning: web: no real server", "\x1b[33mwarning:\x1b[0m web: no real server"},
		{"VI_1  BACKUP  2s", "VI_1  BACKUP  2s"},
	} {
		if got := on.line(tt.line); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
		if got := off.line(tt.line); got != tt.line {
			t.Errorf("without colours: %q", got)
		}
	}
	if got := on.event(status.Event{Level: status.LevelError}); !strings.HasPrefix(got, red) || !strings.HasSuffix(got, normal) {
		t.Errorf("an error is %q", got)
	}
}

func TestPagesAreCutToTheTerminal(t *testing.T) {
	lines := []string{"one", "Zeile zwei", "three"}
	for _, tt := range []struct {
		width, height int
		want          []string
	}{
		{20, 3, lines},
		{20, 2, []string{"one", "... 2 more lines: n>"}},
		{5, 9, []string{"one", "Zeil>", "three"}},
		{20, 1, []string{"... 3 more lines: n>"}},
		{20, 6, append(slices.Clone(lines[:2]), "one", "... 5 more lines: n>", "warning: b", "warning: c")},
	} {
		page := slices.Clone(lines)
		if tt.height == 6 { // warnings are at the end, and some of them are always seen
			page = append(append(page[:2], lines...), "three", "", "warning: a", "warning: b", "warning: c")
		}
		if got := fit(page, "name what", tt.width, tt.height); !slices.Equal(got, tt.want) {
			t.Errorf("%dx%d: %q, want %q", tt.width, tt.height, got, tt.want)
		}
	}
}

// terminal is what a command writes to one, as it comes.
type terminal struct {
	t       *testing.T
	cmd     *exec.Cmd
	master  *os.File
	mu      sync.Mutex
	written bytes.Buffer
	more    chan struct{}
}

// runOnTerminal runs a command on a terminal of 80 columns and so many rows.
func runOnTerminal(t *testing.T, rows uint16, env string, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: 80}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "XDIRECTOR_TEST_MAIN=1", "TERM=xterm", env)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, cmd: cmd, master: master, more: make(chan struct{}, 1)}
	go term.read()
	return term
}

func (x *terminal) read() {
	r, piece := bufio.NewReader(x.master), make([]byte, 4096)
	for {
		n, err := r.Read(piece)
		x.mu.Lock()
		x.written.Write(piece[:n])
		x.mu.Unlock()
		select {
		case x.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// expect waits for text behind what was expected before.
func (x *terminal) expect(text string) {
	x.t.Helper()
	for limit := time.After(20 * time.Second); ; {
		x.mu.Lock()
		_, rest, found := bytes.Cut(x.written.Bytes(), []byte(text))
		if found {
			x.written = *bytes.NewBuffer(bytes.Clone(rest))
		}
		have := x.written.String()
		x.mu.Unlock()
		if found {
			return
		}
		select {
		case <-x.more:
		case <-limit:
			x.cmd.Process.Kill()
			x.t.Fatalf("no %q on the terminal, but at the end %q", text, have[max(0, len(have)-1000):])
		}
	}
}

func (x *terminal) end() {
	x.t.Helper()
	x.expect(firstScreen)
	if err := x.cmd.Wait(); err != nil {
		x.t.Errorf("it ends with %v", err)
	}
}

func TestATerminalIsDrawnAnewAndLeftAsItWas(t *testing.T) {
	t.Parallel()
	t.Run("top", func(t *testing.T) {
		t.Parallel()
		x := runOnTerminal(t, 8, "", "top", "--config", serveDirector(t, flowing()))
		x.expect(otherScreen)
		x.expect(home + "Director lb1, xdp-native, services by packets, over 1.0 s" + clearLine + "\r\n")
		x.expect("... 2 more lines: enlarge the terminal")
		x.master.WriteString("n")
		x.expect(home + "Director lb1, xdp-native, services by name, over 1.0 s")
		x.master.WriteString("q")
		x.end()
	})
	t.Run("status", func(t *testing.T) {
		t.Parallel()
		o, dir := flowing(), t.TempDir()
		if err := os.WriteFile(dir+"/config.yaml", []byte("control: {socket: \""+dir+"/control.sock\"}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		stop := serveAt(t, o, dir+"/control.sock")
		x := runOnTerminal(t, 40, "", "status", "--watch", "--config", dir+"/config.yaml")
		x.expect(green + "MASTER" + normal)
		x.expect(red + "DOWN" + normal)
		stop()
		x.expect(home + yellow + "warning:" + normal + " this is of ")
		defer serveAt(t, o, dir+"/control.sock")()
		x.expect(home + "Director lb1")
		x.master.WriteString("\x03")
		x.end()
	})
	t.Run("without colour", func(t *testing.T) {
		t.Parallel()
		x := runOnTerminal(t, 40, "NO_COLOR=1", "status", "--config", serveDirector(t, flowing()))
		x.expect("  MASTER  ")
		if err := x.cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}
