package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/keepalived"
)

const keepalivedFile = `vrrp_instance VI_1 {
  state BACKUP
  interface eth0
  virtual_router_id 51
  @lb1 priority 150
  virtual_ipaddress {
    192.168.5.100
  }
}
`

func converted(t *testing.T, text string, strict, asJSON bool) (out, report string, err error) {
	t.Helper()
	root := fstest.MapFS{"etc/keepalived.conf": {Data: []byte(text)}}
	var stdout, stderr bytes.Buffer
	err = convert(root, "keepalived.conf", keepalived.Options{Folder: "/etc", ConfigID: "lb1"}, strict, asJSON, &stdout, &stderr)
	return stdout.String(), stderr.String(), err
}

func TestConvertPrintsTheConfigurationAndTheReportApart(t *testing.T) {
	t.Parallel()
	out, report, err := converted(t, keepalivedFile, true, false)
	if err != nil {
		t.Fatal(err)
	}
	if want := "keepalived.conf:2: state BACKUP: not needed: every director starts as BACKUP\n"; report != want {
		t.Errorf("report:\n%s\nwant:\n%s", report, want)
	}
	c, err := config.Parse("out", []byte(out))
	if err != nil {
		t.Fatal(err)
	}
	if c.Instances[0].Priority != 150 {
		t.Errorf("priority %d, want that of the line for this director", c.Instances[0].Priority)
	}
}

func TestConvertFailsForUnsupportedLinesOnlyIfStrict(t *testing.T) {
	t.Parallel()
	text := strings.Replace(keepalivedFile, "state BACKUP", "track_src_ip", 1)
	if out, report, err := converted(t, text, false, false); err != nil || out == "" || !strings.Contains(report, ": unsupported: ") {
		t.Errorf("%v, output %q, report %q; want both and no error", err, out, report)
	}
	if out, report, err := converted(t, text, true, false); err == nil || out != "" || !strings.Contains(report, ": unsupported: ") {
		t.Errorf("strict: %v, output %q, report %q; want an error, a report and no output", err, out, report)
	}
}

func TestConvertSaysThatNothingIsLeft(t *testing.T) {
	t.Parallel()
	out, _, err := converted(t, "global_defs {\n}\n", false, false)
	if err == nil || out != "" || !strings.Contains(err.Error(), "convert keepalived.conf: no vrrp_instance and no virtual_server") {
		t.Errorf("%v, output %q", err, out)
	}
}

func TestConvertPrintsEveryLineAsJSON(t *testing.T) {
	t.Parallel()
	out, report, err := converted(t, keepalivedFile, false, true)
	if err != nil || report != "" {
		t.Fatalf("%v, report %q", err, report)
	}
	var c conversion
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Lines) != 9 || c.Lines[1].Outcome != keepalived.NotNeeded || c.Lines[2].Outcome != keepalived.Converted || !strings.Contains(c.YAML, "VI_1") {
		t.Errorf("%+v", c)
	}
}

func TestConvertNamesAFileThatCantBeRead(t *testing.T) {
	t.Parallel()
	err := convert(fstest.MapFS{}, "/etc/none.conf", keepalived.Options{}, false, false, &bytes.Buffer{}, &bytes.Buffer{})
	if err == nil || err.Error() != "read /etc/none.conf: file does not exist" {
		t.Errorf("%v", err)
	}
}
