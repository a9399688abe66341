package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOnlyRootAndTheGroupMayUseTheSocket runs the command as somebody else.
func TestOnlyRootAndTheGroupMayUseTheSocket(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root")
	}
	const nobody, group = 65534, 4242
	dir, err := os.MkdirTemp("", "xdirector") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	binary, socket, file := filepath.Join(dir, "xdirector"), filepath.Join(dir, "control.sock"), filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(binary, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("control: {socket: \""+socket+"\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(serveAt(t, flowing(), socket))
	for _, tt := range []struct {
		name   string
		mode   os.FileMode
		groups []uint32
		code   int
		stderr string
	}{
		{"another user", 0o660, nil, 1, "xdirector: no permission to open " + socket + ": run the command as root, or as a member of the group xdirector: usermod -aG xdirector USER, who has to log in again\n"},
		{"a member of the group", 0o660, []uint32{group}, 0, ""},
		{"without a group", 0o600, []uint32{group}, 1, "xdirector: no permission to open " + socket + ": it is for root alone, for there was no group xdirector when the service started: run the command as root; or groupadd --system xdirector, restart the service, and usermod -aG xdirector USER\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.Chown(socket, 0, group); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(socket, tt.mode); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(binary, "status", "dns", "--config", file)
			cmd.Env = append(os.Environ(), "XDIRECTOR_TEST_MAIN=1")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: tt.groups}}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			cmd.Run() // the exit code says it
			if code := cmd.ProcessState.ExitCode(); code != tt.code || stderr.String() != tt.stderr || strings.Contains(stdout.String(), "dns") != (tt.code == 0) {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %d and %q", code, stdout.String(), stderr.String(), tt.code, tt.stderr)
			}
		})
	}
}
