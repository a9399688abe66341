package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommandsAreTakenOnlyFromAFileThatNobodyElseCanChange(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("LAB") == "" {
		t.Skip("not root")
	}
	const instance = "vrrp:\n  instances: [{name: a, interface: eth0, virtual_router_id: 1, virtual_addresses: [10.0.0.1]%s}]\n"
	plain := strings.Replace(instance, "%s", "", 1)
	commands := strings.Replace(instance, "%s", ", track: {scripts: [s]}", 1) + "  scripts: [{name: s, command: /bin/true}]\n"
	top := t.TempDir()
	folder := func(name string, mode os.FileMode, uid int) string {
		path := filepath.Join(top, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, 0); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const somebody = 65534
	good := folder("good", 0o755, 0)
	for name, tt := range map[string]struct {
		folder string
		mode   os.FileMode
		uid    int
		want   string // with PATH for the file; empty: nothing is told
	}{
		"root's alone":               {good, 0o644, 0, ""},
		"secret":                     {good, 0o600, 0, ""},
		"its group can write it":     {good, 0o664, 0, "PATH (mode 0664) can be written by others, who could change this file: chmod go-w PATH"},
		"all can write it":           {good, 0o606, 0, "PATH (mode 0606) can be written by others, who could change this file: chmod go-w PATH"},
		"another's":                  {good, 0o644, somebody, "PATH (mode 0644) belongs to user 65534, who could change this file: chown root PATH"},
		"in a folder that all write": {folder("open", 0o777, 0), 0o644, 0, "/open (mode 0777) can be written by others, who could change this file: chmod go-w "},
		"in another's folder":        {folder("theirs", 0o755, somebody), 0o644, 0, "/theirs (mode 0755) belongs to user 65534, who could change this file: chown root "},
		"in a sticky folder":         {folder("sticky", os.ModeSticky|0o777, 0), 0o644, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(tt.folder, strings.ReplaceAll(name, " ", "-"))
			want := strings.ReplaceAll(tt.want, "PATH", path)
			put := func(text string) (*Config, error) {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, tt.mode); err != nil {
					t.Fatal(err)
				}
				if err := os.Chown(path, tt.uid, 0); err != nil {
					t.Fatal(err)
				}
				return Load(path)
			}
			c, err := put(plain)
			if err != nil {
				t.Fatalf("without commands: %v", err)
			}
			if told := Problems(c.Warnings).Error(); told != "" && want == "" || !strings.Contains(told, want) {
				t.Errorf("without commands the warnings are %q, want %q", told, want)
			}
			_, err = put(commands)
			if want == "" && err != nil {
				t.Errorf("with commands: %v", err)
			}
			if want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path+":3:12: vrrp.scripts: commands are taken only from")) {
				t.Errorf("with commands: %v, want %q", err, want)
			}
		})
	}
	if _, err := Load("/dev/null"); err == nil || strings.Contains(err.Error(), "belongs") {
		t.Errorf("what is no ordinary file: %v", err)
	}
}
