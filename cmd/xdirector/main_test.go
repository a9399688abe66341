package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the test binary be the command: a test runs itself with XDIRECTOR_TEST_MAIN=1.
func TestMain(m *testing.M) {
	if os.Getenv("XDIRECTOR_TEST_MAIN") == "1" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "XDIRECTOR_TEST_MAIN=1")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

func TestExitCodesAndMessages(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const instance = "vrrp: {instances: [{name: a, interface: nosuch0, virtual_router_id: 1, virtual_addresses: [10.0.0.1]}]}\n"
	good := file("good.yaml", instance+"control: {socket: "+dir+"/none.sock}\nstate_dir: "+dir+"\ndataplane: {pin_path: "+dir+"/pins}\n")
	unusable := file("unusable.yaml", instance+"control: {socket: "+good+"/none.sock}\nstate_dir: "+dir+"\n")
	bad := file("bad.yaml", strings.Replace(instance, "virtual_router_id: 1", "virtual_router_id: 256", 1)+"lob: {}\n")
	for _, tt := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // occur in the output; empty: there is none
	}{
		{"help", []string{"--help"}, 0, "Available Commands", ""},
		{"version", []string{"version"}, 0, "xdirector dev", ""},
		{"no command", nil, 2, "", "xdirector: a command is missing; see xdirector --help"},
		{"a command misspelt", []string{"stauts"}, 2, "", `xdirector: unknown command "stauts" (did you mean status?); see xdirector --help`},
		{"no command at all", []string{"frobnicate"}, 2, "", `xdirector: unknown command "frobnicate"; see xdirector --help`},
		{"a flag misspelt", []string{"status", "--jsn"}, 2, "", `xdirector: unknown flag --jsn (did you mean "--json"?); see xdirector status --help`},
		{"a flag of another program", []string{"status", "--frobnicate"}, 2, "", "xdirector: unknown flag --frobnicate; see xdirector status --help"},
		{"a letter that is no flag", []string{"status", "-x"}, 2, "", "xdirector: unknown shorthand flag: 'x' in -x; see xdirector status --help"},
		{"a flag that is on or off", []string{"status", "--json=maybe"}, 2, "", `xdirector: status: --json "maybe": write true or false, or the flag alone; see`},
		{"ports of no number", []string{"doctor", "--port", "80,http"}, 2, "", `xdirector: doctor: --port "80,http": write a whole number, or several with commas; see`},
		{"a count of no number", []string{"capture", "--count", "1e3"}, 2, "", `xdirector: capture: --count "1e3": write a whole number; see`},
		{"top by nothing", []string{"top", "--sort", "packet"}, 2, "", `xdirector: top: --sort "packet" (did you mean "packets"?): there are name, packets, bytes, new, flows, active`},
		{"top too often", []string{"top", "--interval", "10ms"}, 2, "", "xdirector: top: --interval 10ms is below 1s"},
		{"top without a daemon", []string{"top", "--config", good}, 1, "", "no xdirector answers on "},
		{"watching without a daemon", []string{"status", "--watch", "--config", good}, 1, "", "no xdirector answers on "},
		{"events of an unknown kind", []string{"events", "--kinds", "check,instnce"}, 2, "", `xdirector: events: unknown kind "instnce" (did you mean "instance"?): there are director, `},
		{"events of no number", []string{"events", "--history", "-1"}, 2, "", "xdirector: events: --history -1 is below 0"},
		{"events without a daemon", []string{"events", "--config", good}, 1, "", "no xdirector answers on "},
		{"failover of nothing", []string{"failover"}, 2, "", "xdirector: failover needs the name of an instance, as status shows it: xdirector failover VI_1"},
		{"failover of two", []string{"failover", "a", "b"}, 2, "", `xdirector: failover takes one instance, got "b" too`},
		{"failover for no time", []string{"failover", "a", "--for", "0s"}, 2, "", "xdirector: failover: --for 0s is not above 0"},
		{"failover for a number", []string{"failover", "a", "--for", "10"}, 2, "", `xdirector: failover: --for "10": write a time such as 30s or 10m; see`},
		{"failover on and off", []string{"failover", "a", "--off", "--for", "1m"}, 2, "", "xdirector: failover takes --for or --off, not both"},
		{"failover without a daemon", []string{"failover", "a", "--config", good}, 1, "", "no xdirector answers on "},
		{"maintenance of nothing", []string{"maintenance"}, 2, "", "xdirector: maintenance takes on or off; see"},
		{"maintenance misspelt", []string{"maintenance", "of"}, 2, "", `xdirector: maintenance takes on or off, got "of"`},
		{"maintenance without a daemon", []string{"maintenance", "on", "--config", good}, 1, "", "no xdirector answers on "},
		{"capture of filtered adverts", []string{"capture", "--vrrp", "--filter", "port 80"}, 2, "", "xdirector: capture: --filter is for packets of services, not for --vrrp"},
		{"capture with a wrong filter", []string{"capture", "--filter", "prot 80", "--config", good}, 2, "", `xdirector: capture: --filter: "prot" is no word of it (did you mean "port"?)`},
		{"packets without programs", []string{"capture", "--config", good}, 1, "", "xdirector: capture: no XDP program of a director is attached under "},
		{"explain of nothing", []string{"explain"}, 2, "", "xdirector: explain needs a client and a virtual address with port: xdirector explain 192.0.2.1 192.168.5.100:80"},
		{"explain without a port", []string{"explain", "192.0.2.1", "10.0.0.1"}, 2, "", `xdirector: explain: virtual address "10.0.0.1": write it with its port`},
		{"explain of a name", []string{"explain", "client", "10.0.0.1:80"}, 2, "", `xdirector: explain: client "client": write an address`},
		{"explain of two kinds", []string{"explain", "192.0.2.1", "10.0.0.1:80", "--syn", "--udp"}, 2, "", "explain takes one of --syn, --ack and --udp"},
		{"explain of a packet and a file", []string{"explain", "--pcap", good, "192.0.2.1"}, 2, "", "explain takes CLIENT and VIP:PORT, or --pcap, not both"},
		{"explain of what is no file of packets", []string{"explain", "--pcap", good, "--config", good}, 1, "", "xdirector: read packets: it is no pcap or pcapng file"},
		{"explain without a daemon", []string{"explain", "192.0.2.1", "10.0.0.1:80", "--config", good}, 1, "", "no xdirector answers on "},
		{"capture without programs", []string{"capture", "--vrrp", "--config", good}, 1, "", "xdirector: capture: no XDP program of a director is attached under " + dir + "/pins: xdirector status tells the plane"},
		{"plan of two files", []string{"plan", "a", "b"}, 2, "", "xdirector: plan takes one file, got 2; see xdirector plan --help"},
		{"plan without a daemon", []string{"plan", "--config", good}, 1, "", "no xdirector answers on "},
		{"plan of a file with mistakes", []string{"plan", bad, "--config", good}, 1, "", bad + ":1:"},
		{"reload on trial for no time", []string{"reload", "--confirm", "0s"}, 2, "", "xdirector: reload: --confirm 0s is not within 1s and 1h0m0s"},
		{"reload on trial for a number", []string{"reload", "--confirm", "30"}, 2, "", `xdirector: reload: --confirm "30": write a time such as 30s or 10m; see`},
		{"reload on trial without a daemon", []string{"reload", "--confirm", "1s", "--config", good}, 1, "", "no xdirector answers on "},
		{"completion of nothing", []string{"completion"}, 2, "", "xdirector: completion needs the name of a shell: bash, zsh, fish; see xdirector completion --help"},
		{"completion of a shell misspelt", []string{"completion", "bassh"}, 2, "", `xdirector: completion: unknown shell "bassh" (did you mean "bash"?)`},
		{"an argument too many", []string{"reload", "web"}, 2, "", `xdirector: reload takes no argument, got "web"; see xdirector reload --help`},
		{"a good file", []string{"check", good}, 0, good + ": valid: 1 instance, 0 services", ""},
		{"a good file by flag", []string{"check", "--config", good}, 0, "valid", ""},
		{"two mistakes, both told", []string{"check", bad}, 1, "", bad + ":1:69: vrrp.instances[0].virtual_router_id: "},
		{"the second of them", []string{"check", bad}, 1, "", bad + ":2:1: lob: "},
		{"no file", []string{"check", filepath.Join(dir, "none.yaml")}, 1, "", "xdirector: read configuration " + dir + "/none.yaml: no such file or directory"},
		{"nobody runs", []string{"status", "--config", good}, 1, "", "no xdirector answers on " + dir + "/none.sock"},
		{"nobody to reload", []string{"reload", "--config", good}, 1, "", "no xdirector answers on "},
		{"run with a bad file", []string{"run", "--config", bad}, 1, "", bad + ":1:69: "},
		{"run with a control socket that can't be", []string{"run", "--config", unusable}, 1, "", "make folder of the control socket: mkdir " + good + ": not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := command(t, tt.args...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, o := range []struct{ name, got, want string }{{"stdout", stdout, tt.stdout}, {"stderr", stderr, tt.stderr}} {
				if !strings.Contains(o.got, o.want) || o.want == "" && o.got != "" {
					t.Errorf("%s is %q, want %q", o.name, o.got, o.want)
				}
			}
		})
	}
}

func TestCheckPrintsJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "empty.yaml")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	code, stdout, _ := command(t, "check", "--json", path)
	var got struct {
		Valid    bool
		Problems []struct {
			File, Text   string
			Line, Column int
		}
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if code != 1 || got.Valid || len(got.Problems) != 1 || got.Problems[0].File != path || got.Problems[0].Line != 1 {
		t.Errorf("exit code %d, %+v", code, got)
	}
}
