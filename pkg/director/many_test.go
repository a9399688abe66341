package director

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
)

// manyServices is a file with n services of two real servers each, all of them different.
func manyServices(n int) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - name: s%d\n    address: 10.1.%d.%d\n    port: 80\n    scheduler: wrr\n    check: {type: tcp}\n    real_servers:\n", i, i/250, i%250+1)
		for r := range 2 {
			fmt.Fprintf(&b, "      - {address: 10.%d.%d.%d, weight: %d}\n", 2+r, i/250, i%250+1, r+1)
		}
	}
	return b.String()
}

// cpu is what a function costs this process.
func cpu(t *testing.T, f func()) time.Duration {
	t.Helper()
	spent := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := spent()
	f()
	return spent() - before
}

// With ten times the services, a reload may be twenty times the work, on a busy machine; a hundred times is a loop within a loop.
func TestTheWorkOfAReloadGrowsWithTheServicesNotWithTheirSquare(t *testing.T) {
	work := func(n int) time.Duration {
		text := manyServices(n)
		return cpu(t, func() {
			old, now := parsed(t, text), parsed(t, strings.ReplaceAll(text, "weight: 2", "weight: 3"))
			if changes := compare(old, now, here{}); len(changes) != n {
				t.Fatalf("%d changes, want %d", len(changes), n)
			}
			d := &Director{cfg: old, servers: map[lb.ServerKey]*server{}}
			d.targets(old)
			if len(d.answering()) != 2*n {
				t.Fatal("not all real servers are waited for")
			}
			for _, s := range now.Services {
				if d.service(s.Name) == nil {
					t.Fatal("a service is not found")
				}
			}
			d.neigh = &hops{} // who waited for new next hops would wait for ever
			d.learnHops(t.Context(), now)
		})
	}
	work(100) // the first time costs more
	few, many := max(work(500), time.Millisecond), work(5000)
	t.Logf("500 services: %v, 5,000: %v of CPU", few, many)
	if many > 40*few {
		t.Errorf("5,000 services cost %v of CPU, 500 cost %v: more than 40 times as much", many, few)
	}
}
