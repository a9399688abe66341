package doctor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/doctor"
)

// TestMain: this binary is also what runs in a namespace of the lab: it examines the box and prints the report,
// or is another director. What is named TestKernel needs IPVS, VLANs, bonds and network cards, and exists only where
// test/vm/exec says that they are there. What is named TestDebian downloads packages: XDIRECTOR_DEBS=1.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "examine":
		err = examineHere(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "advertise":
		err = advertise(os.Args[2:])
	default:
		flag.Parse()
		var elsewhere []string
		if os.Getenv("XDIRECTOR_VM") != "1" {
			elsewhere = append(elsewhere, "^TestKernel")
		}
		if os.Getenv("XDIRECTOR_DEBS") != "1" {
			elsewhere = append(elsewhere, "^TestDebian")
		}
		if err := flag.Set("test.skip", strings.Join(elsewhere, "|")); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func examineHere(args []string) error {
	var o doctor.Options
	flags := flag.NewFlagSet("examine", flag.ContinueOnError)
	flags.StringVar(&o.File, "config", "", "")
	flags.BoolVar(&o.RealServer, "real-server", false, "")
	vip := flags.String("vip", "", "")
	gateway := flags.String("gateway", "", "")
	port := flags.Uint("port", 0, "")
	flags.DurationVar(&o.Listen, "listen", 0, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if o.File != "" {
		if o.Config, err = config.Load(o.File); err != nil {
			return err
		}
	}
	if *vip != "" {
		o.VIPs = []netip.Addr{netip.MustParseAddr(*vip)}
	}
	if *port != 0 {
		o.Ports = []uint16{uint16(*port)}
	}
	if *gateway != "" {
		o.Gateway = netip.MustParseAddr(*gateway)
	}
	return json.NewEncoder(os.Stdout).Encode(doctor.Examine(context.Background(), o))
}

// patient is a box of the lab: a network namespace, and a mount namespace in which commands may change /etc.
type patient struct {
	name string
	pid  int
	args []string // of the examination
	with []string // in front of it
	dir  string
}

var patients atomic.Int32

// admit makes a box. It is joined to others by connect.
func admit(t *testing.T, args ...string) *patient {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("LAB") == "1" {
			t.Fatal("LAB=1 wants root")
		}
		t.Skip("not root")
	}
	p := &patient{name: fmt.Sprintf("doctor-%d-%d", os.Getpid(), patients.Add(1)), args: args, dir: t.TempDir()}
	must(t, exec.Command("ip", "netns", "add", p.name))
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", p.name).Run() })
	// What cures write to /etc is not for the box that the test runs on.
	cmd := exec.Command("ip", "netns", "exec", p.name, "unshare", "--mount", "sh", "-c",
		"for d in /etc/sysctl.d /etc/modules-load.d; do mkdir -p $d; mount -t tmpfs none $d; done; ip link set lo up; echo up; exec sleep infinity")
	begin(t, "start a box", cmd)
	p.pid = cmd.Process.Pid
	return p
}

// begin runs a command until the end of the test; it returns when the command has said its first word.
func begin(t *testing.T, what string, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v: %s%s", strings.Join(cmd.Args, " "), err, out.Bytes(), errout.Bytes())
	}
	return out.String()
}

// in is a command on the box.
func (p *patient) in(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(p.pid), "-m", "-n", "--wd=" + p.dir, "--"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return cmd
}

// sh runs lines on the box, as an operator does.
func (p *patient) sh(t *testing.T, lines ...string) {
	t.Helper()
	must(t, p.in("sh", "-e", "-c", strings.Join(lines, "\n")))
}

// write makes a file of the box and returns its path.
func (p *patient) write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(p.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// examine returns what the doctor says of the box.
func (p *patient) examine(t *testing.T) doctor.Report {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := must(t, p.in(slices.Concat(p.with, []string{binary, "examine"}, p.args)...))
	var r doctor.Report
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if r.Fit != (len(r.Findings) == 0) {
		t.Errorf("fit is %v with %d findings", r.Fit, len(r.Findings))
	}
	return r
}

// connect joins two boxes by a network.
func connect(t *testing.T, a *patient, nameA string, b *patient, nameB string) {
	t.Helper()
	must(t, exec.Command("ip", "link", "add", nameA, "netns", a.name, "type", "veth", "peer", "name", nameB, "netns", b.name))
	a.sh(t, "ip link set "+nameA+" up")
	b.sh(t, "ip link set "+nameB+" up")
}

// healthy waits until nothing is found, as addresses, links and processes need a moment.
func (p *patient) healthy(t *testing.T) {
	t.Helper()
	var r doctor.Report
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if r = p.examine(t); r.Fit {
			return
		}
	}
	t.Fatalf("the box is not fit, although nothing was done to it, or all cures were: %+v", r.Findings)
}

// ailment is something wrong with a box, and what the doctor must say of it.
type ailment struct {
	provoke string // a line for a shell
	what    string // in the finding
	command string // the cure's beginning
}

// cured provokes all ailments of a healthy box, wants each found and nothing else, runs the printed commands, and wants
// the box fit again. others are boxes that a cure may be due on, by the name that the finding gives them.
func (p *patient) cured(t *testing.T, ailments []ailment, others map[string]*patient) {
	t.Helper()
	if ailments[0].provoke != "" { // else it was done already
		p.healthy(t)
	}
	for _, a := range ailments {
		if a.provoke != "" {
			p.sh(t, a.provoke)
		}
	}
	r := p.examine(t)
	for _, a := range ailments {
		found := false
		for _, f := range r.Findings {
			if !strings.Contains(f.What, a.what) {
				continue
			}
			found = true
			if f.Why == "" || !strings.HasPrefix(f.Command, a.command) {
				t.Errorf("%s: why %q, cure %q, want one that begins with %q", f.What, f.Why, f.Command, a.command)
			}
		}
		if !found {
			t.Errorf("%q is not found after %s", a.what, a.provoke)
		}
	}
	if len(r.Findings) != len(ailments) || t.Failed() {
		t.Fatalf("%d findings for %d ailments: %+v (not looked at: %+v)", len(r.Findings), len(ailments), r.Findings, r.Skipped)
	}
	for _, f := range r.Findings {
		at := p
		if f.Where != "" {
			if at = others[f.Where]; at == nil {
				t.Fatalf("%s: the cure is for %s, which is no box here", f.What, f.Where)
			}
		}
		at.sh(t, f.Command)
	}
	p.healthy(t)
}
