package web

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xdirector/xdirector/test/lab"
)

const patience = 20 * time.Second // for a fact

// overflow is true if the page is wider than its window.
const overflow = `document.documentElement.scrollWidth > document.documentElement.clientWidth || document.body.scrollWidth > window.innerWidth`

// contrast lists the texts whose colour is too near that of what is behind them (WCAG 2, AA).
const contrast = `(() => {
  const rgb = c => (c.match(/[\d.]+/g) || []).map(Number);
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const bad = new Set();
  for (const e of document.body.querySelectorAll('*')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    let back = e, color = [0, 0, 0, 0];
    while (back && (color = rgb(getComputedStyle(back).backgroundColor), color.length === 4 && color[3] === 0)) back = back.parentElement;
    const [a, b] = [light(rgb(getComputedStyle(e).color).slice(0, 3)), light(color.slice(0, 3))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.add(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2) + ': ' + e.textContent.slice(0, 40));
  }
  return [...bad];
})()`

func TestBrowserShowsThePageLive(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("LAB") == "" {
		t.Skip("not root")
	}
	browser, err := lab.StartBrowser(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer browser.Close()
	b := &box{}
	seconds := 0
	p := New(b.status, &b.feed)
	for ; seconds < 120; seconds += 2 {
		b.publish(picture(seconds, waves))
		p.turn()
	}
	many := &box{}
	crowded := New(many.status, &many.feed)
	for n := range 5 {
		many.publish(crowd(10000, 2*n))
		crowded.turn()
	}
	pages := map[string]*httptest.Server{}
	for name, h := range map[string]http.Handler{"box": p, "crowd": crowded} {
		server := httptest.NewServer(h)
		defer func() { server.CloseClientConnections(); server.Close() }()
		pages[name] = server
	}
	for _, look := range []struct {
		name, page string
		width      int
		dark       bool
	}{
		{"light", "box", 1280, false}, {"dark", "box", 1280, true}, {"phone", "box", 360, false}, {"phone-dark", "box", 360, true}, {"tablet", "box", 840, false},
		{"crowd", "crowd", 1280, false}, {"crowd-phone", "crowd", 360, true}, {"search", "crowd", 1280, false},
	} {
		t.Run(look.name, func(t *testing.T) {
			url := pages[look.page].URL
			if look.name == "search" {
				url += "/?q=SERVICE-04321"
			}
			tab, err := browser.Open(url, lab.Window{Width: look.width, Dark: look.dark})
			if err != nil {
				t.Fatal(err)
			}
			ok := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			ok(tab.Wait(t.Context(), patience, `document.getElementById('stream').textContent === 'live'`))
			var wide bool
			ok(tab.Eval(overflow, &wide))
			if wide {
				t.Error("the page is wider than its window")
			}
			var pale []string
			if look.page == "box" {
				ok(tab.Eval(contrast, &pale))
			}
			for _, text := range pale {
				t.Error("too little contrast: " + text)
			}
			var services int
			ok(tab.Eval(`document.querySelectorAll('#services tbody').length`, &services))
			if want := map[string]int{"crowd": 200, "crowd-phone": 200, "search": 1}[look.name]; want != 0 && services != want {
				t.Errorf("%d services are shown, want %d", services, want)
			}
			var drawn int
			ok(tab.Eval(`document.querySelectorAll('td.curve svg path').length`, &drawn))
			if drawn == 0 {
				t.Error("there are no curves")
			}
			if look.page == "box" {
				before := ""
				ok(tab.Eval(`document.querySelector('tbody[data-key=web] tr.service td.curve path:last-child').getAttribute('d')`, &before))
				if !strings.Contains(before, "L59 ") || strings.Count(before, " 15.0") > 5 {
					t.Errorf("the curve does not show two minutes: %s", before)
				}
				s := picture(seconds, waves)
				s.Instances[0].State, s.Instances[0].Since = "BACKUP", s.Time
				b.publish(s)
				p.turn()
				ok(tab.Wait(t.Context(), patience, `document.querySelector('#instances tbody[data-key=VI_1] td.state').textContent === 'BACKUP'`))
				ok(tab.Wait(t.Context(), patience, `document.querySelector('#events tbody td.text').textContent.startsWith('VI_1 is BACKUP')`))
				ok(tab.Wait(t.Context(), patience, `document.querySelector('tbody[data-key=web] tr.service td.curve path:last-child').getAttribute('d') !== '`+before+`'`))
				seconds += 2
				b.publish(picture(seconds, waves))
				p.turn()
				seconds += 2
				ok(tab.Wait(t.Context(), patience, `document.querySelector('#instances tbody[data-key=VI_1] td.state').textContent === 'MASTER'`))
			}
			keep(t, tab, look.name)
			for _, problem := range tab.Problems() {
				t.Error(problem)
			}
			if look.name == "light" { // the director goes, and comes back
				pages[look.page].CloseClientConnections()
				ok(tab.Wait(t.Context(), patience, `document.getElementById('stream').textContent.startsWith('NOT LIVE') && document.body.className === 'stale'`))
				ok(tab.Wait(t.Context(), patience, `document.getElementById('stream').textContent === 'live' && document.body.className === ''`))
			}
		})
	}
	t.Run("no script", func(t *testing.T) {
		tab, err := browser.Open(pages["box"].URL, lab.Window{Width: 1280, NoScript: true})
		if err != nil {
			t.Fatal(err)
		}
		keep(t, tab, "no-script")
		var text string
		if err := tab.Eval(`document.body.innerText`, &text); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"SPLIT BRAIN", "192.168.5.103:80", "DOWN", "With JavaScript the page is live"} {
			if !strings.Contains(text, want) {
				t.Errorf("without JavaScript there is no %q in:\n%s", want, text)
			}
		}
	})
}

// keep keeps a picture for somebody to look at, if a folder for them is named.
func keep(t *testing.T, tab *lab.Tab, name string) {
	t.Helper()
	folder := os.Getenv("XDIRECTOR_SCREENSHOTS")
	if folder == "" {
		return
	}
	shot, err := tab.Screenshot()
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, name+".png"), shot, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}
