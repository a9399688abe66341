package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

// before is what runs on the two boxes of the page. The priority is the only difference of the two.
const before = `global_defs {
    router_id %s
}

vrrp_instance VI_1 {
    state %s
    interface eth0
    virtual_router_id 51
    priority %d
    advert_int 1
    authentication {
        auth_type PASS
        auth_pass 1111
    }
    virtual_ipaddress {
        192.168.5.100
    }
}

virtual_server 192.168.5.100 80 {
    delay_loop 2
    lb_algo rr
    lb_kind DR
    protocol TCP

    real_server 192.168.5.103 80 {
        weight 1
        TCP_CHECK {
            connect_timeout 3
            delay_before_retry 3
            nb_get_retry 3
        }
    }
    real_server 192.168.5.104 80 {
        weight 1
        TCP_CHECK {
            connect_timeout 3
            delay_before_retry 3
            nb_get_retry 3
        }
    }
}
`

const keepalivedUnit = `[Service]
Type=simple
ExecStart=/usr/sbin/keepalived --dont-fork --log-console --log-detail --pid /run/keepalived/main.pid
RuntimeDirectory=keepalived
`

// step is a section of the page.
type step struct {
	title       string
	there, back []block
}

// steps reads the page.
func steps(t *testing.T) (list []step) {
	t.Helper()
	data, err := os.ReadFile("../../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for _, b := range blocks(t, "migration.md") {
		title := ""
		for _, line := range lines[:b.line] {
			if heading, ok := strings.CutPrefix(line, "## "); ok {
				title = heading
			}
		}
		if len(list) == 0 || list[len(list)-1].title != title {
			list = append(list, step{title: title})
		}
		s := &list[len(list)-1]
		if n := slices.Index(b.on, "back"); n >= 0 {
			b.on = slices.Delete(b.on, n, n+1)
			s.back = append(s.back, b)
		} else {
			s.there = append(s.there, b)
		}
	}
	return list
}

// TestMigrationPageLeadsThereAndBackWithoutAnOutage types the page on two boxes with keepalived that balance by IPVS, while clients go
// on asking: each step, its way back, and the step once more. That takes minutes, and IPVS; otherwise the page is only read.
func TestMigrationPageLeadsThereAndBackWithoutAnOutage(t *testing.T) {
	list := steps(t)
	if len(list) != 5 {
		t.Fatalf("the page has %d steps with commands, want 5", len(list))
	}
	for n, s := range list {
		if n > 0 && len(s.back) == 0 {
			t.Errorf("%s: there is no way back", s.title)
		}
	}
	if os.Getenv("XDIRECTOR_PAGES") != "all" {
		return
	}

	b := newBook(t)
	b.keepalivedBoxes()
	client := b.machines["client"].Node
	// Few, so that an emulated machine has time for the rest: a gap is missed by none that is longer than 200 ms.
	load, err := client.StartLoad(netip.MustParseAddrPort("192.168.5.100:80"), 5, requestLimit())
	if err != nil {
		t.Fatal(err)
	}
	b.holder("lb1")
	began := time.Now()
	holder := "lb1"
	for n, s := range list {
		from, handover := holder, n == 2 || n == 4
		if handover {
			holder = map[string]string{"lb1": "lb2", "lb2": "lb1"}[holder]
		}
		b.all(s.there)
		b.holder(holder)
		began = b.noOutage(load, s.title, began, handover)
		if len(s.back) == 0 {
			continue
		}
		b.all(s.back)
		b.holder(from)
		began = b.noOutage(load, s.title+", back", began, handover)
		b.all(s.there)
		b.holder(holder)
		began = b.noOutage(load, s.title+", again", began, handover)
	}
	load.Stop()
}

func (b *book) all(list []block) {
	b.t.Helper()
	for _, block := range list {
		b.do(block)
	}
}

// keepalivedBoxes starts keepalived on lb1 and lb2, and installs xdirector there as the quick start says.
func (b *book) keepalivedBoxes() {
	b.t.Helper()
	b.t.Cleanup(func() {
		for _, name := range []string{"lb1", "lb2"} {
			if journal, _ := b.machines[name].Type("tail -n 30 /run/keepalived.journal", patience); b.t.Failed() {
				b.t.Logf("journal of keepalived on %s:\n%s", name, journal)
			}
		}
	})
	for _, name := range []string{"r1", "r2"} {
		if err := b.machines[name].CarryVIPs("192.168.5.100"); err != nil {
			b.t.Fatal(err)
		}
	}
	for n, name := range []string{"lb1", "lb2"} {
		file := fmt.Sprintf(before, name, []string{"MASTER", "BACKUP"}[n], 150-50*n)
		b.script(name, "mkdir -p /etc/keepalived\n"+
			"cat >/etc/keepalived/keepalived.conf <<'END'\n"+file+"END\n"+
			"cat >/etc/systemd/system/keepalived.service <<'END'\n"+keepalivedUnit+"END\n"+
			"systemctl enable --now keepalived")
	}
	install := blocks(b.t, "quick-start.md")[0]
	install.on = []string{"lb1", "lb2"}
	b.do(install)
}

func (b *book) script(name, script string) {
	b.t.Helper()
	if out, err := b.machines[name].Type(script, patience); err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
}

// holder waits until one of the directors alone holds the address.
func (b *book) holder(want string) {
	b.t.Helper()
	err := lab.Wait(b.t.Context(), patience, func() error {
		for _, name := range []string{"lb1", "lb2"} {
			holds, err := b.machines[name].Holds("eth0", netip.MustParseAddr("192.168.5.100"))
			if err != nil || holds != (name == want) {
				return fmt.Errorf("%s holds the address: %v (%v); %s should", name, holds, err, want)
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// noOutage fails the test for every request since a moment that wasn't answered. What was open at a handover may have been reset,
// since the new MASTER doesn't know it.
func (b *book) noOutage(load *lab.Load, what string, since time.Time, handover bool) time.Time {
	b.t.Helper()
	now := time.Now()
	err := lab.Wait(b.t.Context(), patience, func() error {
		if n := load.Requests().Between(now, time.Now()).Outcomes()[lab.OK]; n < 5 {
			return fmt.Errorf("%s: %d requests answered after that", what, n)
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	requests, open := load.Requests().Between(since, now), 0
	for _, r := range requests {
		switch {
		case r.Outcome == lab.OK || r.Excused():
		case r.Outcome == lab.Reset && handover:
			open++
		default:
			b.t.Errorf("%s: a request failed %v after the beginning: %s after %v (%v)", what, r.Start.Sub(since), r.Outcome, r.End.Sub(r.Start), r.Err)
		}
	}
	if open > 2 {
		b.t.Errorf("%s: %d requests were reset", what, open)
	}
	b.t.Logf("%s: %d requests in %v, %d were open at the handover and reset", what, len(requests), now.Sub(since).Round(time.Millisecond), open)
	return now
}
