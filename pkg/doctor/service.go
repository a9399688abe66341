package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xdirector/xdirector/pkg/xdp"
)

const (
	serviceUnit = "xdirector.service"
	// mountUnit mounts a bpffs where the service, which may not mount anything, pins its programs.
	mountUnit = "run-xdirector-bpf.mount"
	mountedAt = "/run/xdirector/bpf"
)

// unitProperty is what systemd says of a unit; empty: nothing, or there is no systemd.
func (b *box) unitProperty(unit, property string) string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return ""
	}
	text, err := b.run("systemctl", "show", "-P", property, unit)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// serviceUser is the user that the service of this configuration runs as; empty: there is no such service, or root runs it.
func (b *box) serviceUser() string {
	if b.Config == nil || !slices.Contains(strings.Fields(b.unitProperty(serviceUnit, "ExecStart")), b.File) {
		return ""
	}
	user := b.unitProperty(serviceUnit, "User")
	if user == "root" {
		return ""
	}
	return user
}

// service: what the service needs beside the box, if it doesn't run as root.
func service(b *box) error {
	user := b.serviceUser()
	if user == "" {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can look at files as user " + user + " does")
	}
	if _, err := b.run("getent", "passwd", user); err != nil {
		b.found("there is no user "+user, "the service is not started: its unit runs it as that user",
			fmt.Sprintf("useradd --system --user-group --no-create-home --shell /usr/sbin/nologin %s", quote(user)))
		return nil // all else comes after
	}
	b.readable(user)
	return nil
}

// readable: the service reads its configuration.
func (b *box) readable(user string) {
	as := func(test, path string) bool {
		_, err := b.run("setpriv", "--reuid", user, "--regid", user, "--init-groups", "--inh-caps=-all", "test", test, path)
		return err == nil
	}
	if as("-r", b.File) {
		return
	}
	command := fmt.Sprintf("chgrp %s %[2]s && chmod 640 %[2]s", quote(user), quote(b.File))
	if folder := filepath.Dir(b.File); !as("-x", folder) {
		command = fmt.Sprintf("chgrp %s %[2]s && chmod g+rx %[2]s && %[3]s", quote(user), quote(folder), command)
	}
	b.found("user "+user+", as whom the service runs, can't read "+b.File, "the service is not started, and one that runs can't reload", command)
}

// pinnedByService: the service finds a bpffs at its pin_path. Its own unit mounts that before it starts.
func (b *box) pinnedByService() (known bool, err error) {
	if b.serviceUser() == "" {
		return false, nil
	}
	path := b.Config.Dataplane.PinPath
	on, err := xdp.OnBPFFS(path)
	switch {
	case err != nil || on:
	case path != mountedAt && !strings.HasPrefix(path, mountedAt+"/"):
		b.found(path+" is not on a bpffs, and the service may not mount one there", "XDP programs can't be pinned, so the XDP plane is refused", b.edit("s|pin_path: *"+strings.ReplaceAll(path, ".", `\.`)+"|pin_path: "+mountedAt+"|"))
	case b.unitProperty(mountUnit, "LoadState") != "loaded":
		const file = "/etc/systemd/system/" + mountUnit
		b.found(mountUnit+" is not installed, and nothing else mounts a bpffs at "+mountedAt, "the service may not mount one: XDP programs can't be pinned, so the XDP plane is refused",
			`printf '[Mount]\nWhat=bpf\nWhere=`+mountedAt+`\nType=bpf\nOptions=nosuid,nodev,noexec,mode=0700\n' > `+file+" && systemctl daemon-reload && systemctl start "+mountUnit+b.restarted())
	case b.unitProperty(serviceUnit, "ActiveState") == "active":
		b.found(path+" is not on a bpffs, since "+mountUnit+" doesn't run", "XDP programs can't be pinned, so the XDP plane is refused", "systemctl start "+mountUnit+b.restarted())
	}
	return true, err
}

// restarted is the rest of a command whose effect a running service sees when it is started again.
func (b *box) restarted() string {
	if b.unitProperty(serviceUnit, "ActiveState") != "active" {
		return ""
	}
	return " && systemctl restart " + serviceUnit
}
