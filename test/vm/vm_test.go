// Package vm_test proves that test/vm/exec can be trusted with the tests of other packages.
package vm_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// needLab skips without root on a developer's machine, and only there.
func needLab(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("LAB") == "1" {
			t.Fatal("LAB=1 wants root")
		}
		t.Skip("not root")
	}
}

// guest prepares a shell script to be run in a machine of its own.
func guest(t *testing.T, script string, env ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	path, err := filepath.Abs("exec")
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd = exec.CommandContext(t.Context(), path, "/bin/bash", "-c", script)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// run returns the exit code of a script and what came out.
func run(t *testing.T, script string, env ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd, out, errout := guest(t, script, env...)
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errout.String()
}

func TestGuestHasKernel61WithIPVSAndPassesExitCode0(t *testing.T) {
	needLab(t)
	t.Parallel()
	code, out, errout := run(t, `uname -r; hostname; modprobe ip_vs && ls -d /proc/sys/net/ipv4/vs; pwd; echo "$XDIRECTOR_VM $XDIRECTOR_WORD $LEAK"`,
		"XDIRECTOR_WORD=it's two", "LEAK=leaked")
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out, "\n")
	if code != 0 || errout != "" || !strings.HasPrefix(out, "6.1.") || len(lines) < 5 {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, out, errout)
	}
	if got, want := strings.Join(lines[1:], "|"), "xdirector-vm|/proc/sys/net/ipv4/vs|"+wd+"|1 it's two |"; got != want {
		t.Errorf("the guest says %q, want %q", got, want)
	}
}

func TestOutputStreamsAndOnlyTheOutFolderIsWritten(t *testing.T) {
	needLab(t)
	t.Parallel()
	dir := t.TempDir()
	lost := filepath.Join(t.TempDir(), "lost")
	cmd, _, stderr := guest(t, `echo started; echo x >"$XDIRECTOR_LOST"; until [[ -e $XDIRECTOR_OUT/go ]]; do sleep 0.1; done
		cat "$XDIRECTOR_OUT/go" >"$XDIRECTOR_OUT/gone"; echo to stderr >&2; exit 3`,
		"XDIRECTOR_OUT="+dir, "XDIRECTOR_LOST="+lost)
	cmd.Stdout = nil
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(pipe)
	first, err := lines.ReadString('\n')
	if err != nil || first != "started\n" {
		t.Fatalf("first line %q: %v", first, err)
	}
	// The guest ends only after this: had its output not come while it runs, the test would hang until VM_TIMEOUT.
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte("on"), 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := lines.ReadString('\n')
	if err != nil || second != "to stderr\n" {
		t.Errorf("second line %q: %v", second, err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("exit code %d (%v), want 3; stderr %q", cmd.ProcessState.ExitCode(), err, stderr)
	}
	if gone, err := os.ReadFile(filepath.Join(dir, "gone")); string(gone) != "on" {
		t.Errorf("XDIRECTOR_OUT/gone has %q: %v", gone, err)
	}
	if _, err := os.Stat(lost); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the guest wrote elsewhere is on the host: %v", err)
	}
}

func TestHangIsEndedByTheTimeLimit(t *testing.T) {
	needLab(t)
	t.Parallel()
	code, _, errout := run(t, `sleep infinity`, "VM_TIMEOUT=7")
	if code != 124 || !strings.Contains(errout, "no end after 7 s (VM_TIMEOUT)") {
		t.Errorf("exit code %d, stderr %q, want 124 and the limit's name", code, errout)
	}
}

func TestKilledRunnerTakesItsMachineAlong(t *testing.T) {
	needLab(t)
	t.Parallel()
	cmd, _, _ := guest(t, `echo started; sleep infinity`, "TMPDIR="+t.TempDir()) // it leaves its folder behind
	cmd.Stdout, cmd.Stderr = nil, nil
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(pipe).ReadString('\n'); err != nil {
		t.Fatalf("first line %q: %v", line, err)
	}
	started := descendants(t, cmd.Process.Pid)
	if machines := len(started); machines < 2 {
		t.Fatalf("%d processes below the runner, want qemu and its guard", machines)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		alive := slices.DeleteFunc(slices.Clone(started), func(pid int) bool {
			_, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)) // a zombie has none
			return err != nil
		})
		if len(alive) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("processes %v outlive their runner", alive)
		}
	}
}

// descendants lists the processes below pid.
func descendants(t *testing.T, pid int) (list []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		var child, parent int
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PPID, where the name may hold anything.
		_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
		if _, err := fmt.Sscanf(rest, "%1s %d", new(string), &parent); err != nil || parent != pid {
			continue
		}
		if _, err := fmt.Sscan(string(stat), &child); err != nil {
			t.Fatal(err)
		}
		list = append(append(list, child), descendants(t, child)...)
	}
	return list
}

func TestDeathOfTheGuestIsAFailureWithItsConsole(t *testing.T) {
	needLab(t)
	t.Parallel()
	code, out, errout := run(t, `echo before; echo c >/proc/sysrq-trigger`)
	if code != 125 || out != "before\n" || !strings.Contains(errout, "the guest died") || !strings.Contains(errout, "Kernel panic") {
		t.Errorf("exit code %d, stdout %q, stderr %q, want 125 and the panic", code, out, errout)
	}
}

func TestSystemdAsPID1StartsNotifyUnitsAndPassesTheExitCode(t *testing.T) {
	needLab(t)
	t.Parallel()
	code, out, errout := run(t, `set -e
		cat >/run/systemd/system/it.service <<-'U'
			[Unit]
			DefaultDependencies=no
			[Service]
			Type=notify
			NotifyAccess=all
			ExecStart=/bin/bash -c 'systemd-notify --ready --status="is up"; exec sleep infinity'
		U
		systemctl daemon-reload
		systemctl start it.service
		cat /proc/1/comm
		hostname
		systemctl show -P StatusText it.service
		exit 4`, "VM_SYSTEMD=1")
	if code != 4 || out != "systemd\nxdirector-vm\nis up\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errout)
	}
}
