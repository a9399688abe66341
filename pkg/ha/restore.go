package ha

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Who removes what we put back, again and again, must fill neither the log nor a CPU.
const (
	fightLimit  = 10 // put back at once so often in fightWindow, then once a fightPause
	fightWindow = 10 * time.Second
	fightPause  = time.Second
	fightLine   = time.Minute // between two log lines
)

// fight is how often somebody else removed something of an instance lately.
type fight struct {
	began  time.Time // of the window
	lost   int       // in the window
	told   time.Time
	untold int
	back   time.Time // when something was put back last
}

// wait says that it is too early to put something back, and wakes the holder when it is time.
func (f *fight) wait(wake func()) bool {
	now := time.Now()
	if f.lost <= fightLimit || now.Sub(f.back) >= fightPause {
		f.back = now
		return false
	}
	time.AfterFunc(fightPause-now.Sub(f.back), wake)
	return true
}

// lost notes that somebody else removed something of ours, which the caller puts back.
func (h *holder) lost(what string, name any, device string) {
	h.restored.Add(1)
	f, now := &h.fight, time.Now()
	if now.Sub(f.began) > fightWindow {
		f.began, f.lost = now, 0
	}
	f.lost++
	if f.untold++; now.Sub(f.told) < fightLine {
		return
	}
	h.log.Warn(what+" was removed by somebody else, or its lifetime ended while this process stood still; put back, still MASTER. "+suspects(device),
		"name", name, "interface", device, "times", f.untold)
	f.told, f.untold = now, 0
}

// meddlers are the programs that take addresses away which they did not add, by the names of their processes, with
// the cure.
func meddlers() map[string]string {
	return map[string]string{
		"NetworkManager":  "tell it to leave the interface alone: nmcli device set IFACE managed no",
		"systemd-network": "systemd-networkd: put KeepConfiguration=yes in the interface's .network file and ManageForeignRoutes=no in networkd.conf",
		"dhclient":        "its script flushes the interface; give the interface a static address",
		"connmand":        "put IFACE into NetworkInterfaceBlacklist in /etc/connman/main.conf",
		"keepalived":      "is the same address in its configuration?",
		"ifplugd":         "it runs ifdown when the link goes down",
	}
}

// suspects names the running programs that may have done it.
func suspects(device string) string {
	var found []string
	names, _ := filepath.Glob("/proc/[0-9]*/comm") // the pattern is good
	known := meddlers()
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			continue // it ended
		}
		comm := strings.TrimSpace(string(b))
		if cure, ok := known[comm]; ok {
			found = append(found, comm+" ("+strings.ReplaceAll(cure, "IFACE", device)+")")
		}
	}
	if found == nil {
		return "None of the usual network managers runs here: look for a script or a person"
	}
	slices.Sort(found)
	return "Running here: " + strings.Join(slices.Compact(found), "; ")
}
