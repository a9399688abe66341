package release_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inBox installs and purges the package in the first argument where systemd doesn't run: /etc and /usr are layers on the host's, in
// the folder of the second argument; /run is empty.
const inBox = `set -e
for folder in /etc /usr /var/log; do
	mkdir -p "$2$folder.upper" "$2$folder.work"
	mount -t overlay -o "lowerdir=$folder,upperdir=$2$folder.upper,workdir=$2$folder.work" overlay $folder
done
mount -t tmpfs run /run
mkdir -p "$2/dpkg/info" "$2/dpkg/updates" "$2/dpkg/triggers"
dpkg-query -s systemd >"$2/dpkg/status"
folder=$2
packages() { dpkg --admindir="$folder/dpkg" --no-triggers "$@"; }
packages -i "$1"
getent passwd xdirector
stat -c '%n %U:%G %a' /etc/xdirector
xdirector version
packages -i "$1"
touch /etc/xdirector/config.yaml
packages --purge xdirector
ls -d /etc/xdirector /usr/bin/xdirector /usr/lib/systemd/system/xdirector.service 2>&1 || true
`

func TestPackageIsInstalledAndPurgedWhereSystemdDoesNotRun(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root")
	}
	packages, err := filepath.Glob(filepath.Join(root, "bin/packages/*.deb"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("bin/packages has %v (make packages): %v", packages, err)
	}
	out, err := exec.Command("unshare", "--mount", "--propagation", "private", "bash", "-c", inBox, "box", packages[0], t.TempDir()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range []string{
		"xdirector: then: systemctl enable --now xdirector",
		"xdirector:x:", "/etc/xdirector root:xdirector 2755", "(go",
		"ls: cannot access '/etc/xdirector'", "ls: cannot access '/usr/bin/xdirector'", "ls: cannot access '/usr/lib/systemd/system/xdirector.service'",
	} {
		if !strings.Contains(string(out), line) {
			t.Errorf("nothing says %q:\n%s", line, out)
		}
	}
	if strings.Count(string(out), "xdirector: not started") != 1 {
		t.Errorf("the second installation says what the first one does:\n%s", out)
	}
}
