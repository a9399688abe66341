package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// browserLimit is how long the browser may take for one command.
const browserLimit = 20 * time.Second

// Browser is a headless Chromium, spoken to over two pipes by its DevTools protocol.
type Browser struct {
	cmd *exec.Cmd
	out io.WriteCloser

	mu      sync.Mutex
	last    int
	waiting map[int]chan answer
	tabs    map[string]*Tab // by session
	err     error           // why it is not there any more
}

type answer struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// Tab is one page in a Browser.
type Tab struct {
	b       *Browser
	session string
	origin  string

	mu       sync.Mutex
	problems []string
	loaded   chan struct{}
}

// StartBrowser starts a browser that keeps what it has to keep in folder dir. Close must be called; it ends with us, too,
// since then the pipes do.
func StartBrowser(dir string) (*Browser, error) {
	fromUs, out, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the browser: %w", err)
	}
	in, toUs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the browser: %w", err)
	}
	cmd := exec.Command("chromium-headless-shell", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
		"--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--user-data-dir="+dir, "about:blank")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.ExtraFiles = []*os.File{fromUs, toUs} // its descriptors 3 and 4
	err = cmd.Start()
	fromUs.Close()
	toUs.Close()
	if err != nil {
		return nil, fmt.Errorf("start the browser (Debian package chromium-headless-shell): %w", err)
	}
	b := &Browser{cmd: cmd, out: out, waiting: map[int]chan answer{}, tabs: map[string]*Tab{}}
	go b.read(in)
	return b, nil
}

// Close ends the browser, and waits until it leaves its folder alone.
func (b *Browser) Close() {
	_ = b.call("", "Browser.close", struct{}{}, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.cmd.Wait()
	}()
	select {
	case <-done:
	case <-time.After(browserLimit):
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
		<-done
	}
	_ = b.out.Close()
}

// read hands out what the browser says, until it ends.
func (b *Browser) read(in io.ReadCloser) {
	defer in.Close()
	r := bufio.NewReader(in)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			b.err = errors.New("the browser has ended")
			for _, c := range b.waiting {
				close(c)
			}
			b.waiting = nil
			b.mu.Unlock()
			return
		}
		var message struct {
			ID        int
			SessionID string
			Method    string
			Params    json.RawMessage
			answer
		}
		if json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &message) != nil {
			continue
		}
		b.mu.Lock()
		c, tab := b.waiting[message.ID], b.tabs[message.SessionID]
		delete(b.waiting, message.ID)
		b.mu.Unlock()
		switch {
		case c != nil:
			c <- message.answer
		case tab != nil:
			tab.event(message.Method, message.Params)
		}
	}
}

// call sends a command, to a tab if session is not empty, and reads its result into result, if that is not nil.
func (b *Browser) call(session, method string, params, result any) error {
	c := make(chan answer, 1)
	b.mu.Lock()
	if b.err != nil {
		b.mu.Unlock()
		return b.err
	}
	b.last++
	b.waiting[b.last] = c
	message := map[string]any{"id": b.last, "method": method, "params": params}
	if session != "" {
		message["sessionId"] = session
	}
	text, err := json.Marshal(message)
	if err == nil {
		_, err = b.out.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("tell the browser %s: %w", method, err)
	}
	select {
	case a, ok := <-c:
		if !ok {
			return fmt.Errorf("tell the browser %s: it has ended", method)
		}
		if a.Error != nil {
			return fmt.Errorf("tell the browser %s: %s", method, a.Error.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-time.After(browserLimit):
		return fmt.Errorf("tell the browser %s: no answer after %v", method, browserLimit)
	}
}

// Window is how a page is shown.
type Window struct {
	Width    int // in pixels
	Dark     bool
	NoScript bool // the page's own scripts don't run
}

// Open shows a page, and returns when it is loaded.
func (b *Browser) Open(url string, window Window) (*Tab, error) {
	var target struct{ TargetID string }
	var session struct{ SessionID string }
	if err := b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return nil, err
	}
	if err := b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session); err != nil {
		return nil, err
	}
	scheme, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	t := &Tab{b: b, session: session.SessionID, origin: scheme + "://" + host + "/", loaded: make(chan struct{})}
	b.mu.Lock()
	b.tabs[t.session] = t
	b.mu.Unlock()
	color := "light"
	if window.Dark {
		color = "dark"
	}
	type params = map[string]any
	for _, c := range []struct {
		method string
		params params
	}{
		{"Page.enable", params{}}, {"Runtime.enable", params{}}, {"Network.enable", params{}}, {"Log.enable", params{}},
		{"Emulation.setDeviceMetricsOverride", params{"width": window.Width, "height": 900, "deviceScaleFactor": 1, "mobile": window.Width < 600}},
		{"Emulation.setEmulatedMedia", params{"features": []params{{"name": "prefers-color-scheme", "value": color}}}},
		{"Emulation.setScriptExecutionDisabled", params{"value": window.NoScript}},
		{"Page.navigate", params{"url": url}},
	} {
		if err := b.call(t.session, c.method, c.params, nil); err != nil {
			return nil, err
		}
	}
	select {
	case <-t.loaded:
		return t, nil
	case <-time.After(browserLimit):
		return nil, fmt.Errorf("open %s: not loaded after %v", url, browserLimit)
	}
}

// event notes what is wrong with a page.
func (t *Tab) event(method string, params json.RawMessage) {
	var e struct {
		Type    string
		Request struct{ URL string }
		Args    []struct{ Value any }
		Entry   struct{ Level, Text, URL string }
	}
	if err := json.Unmarshal(params, &e); err != nil {
		e.Entry.Text = err.Error()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	problem := func(format string, args ...any) { t.problems = append(t.problems, fmt.Sprintf(format, args...)) }
	switch method {
	case "Page.loadEventFired":
		select {
		case <-t.loaded:
		default:
			close(t.loaded)
		}
	case "Runtime.exceptionThrown":
		problem("exception: %s", params)
	case "Runtime.consoleAPICalled":
		problem("console.%s: %v", e.Type, e.Args)
	case "Log.entryAdded":
		problem("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
	case "Network.requestWillBeSent":
		if !strings.HasPrefix(e.Request.URL, t.origin) {
			problem("request to %s", e.Request.URL)
		}
	}
}

// Problems are errors and other output of the page's script, what the browser complains of, and requests to elsewhere.
func (t *Tab) Problems() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.problems)
}

// Eval runs an expression in the page and reads its value into result, a pointer.
func (t *Tab) Eval(expression string, result any) error {
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	err := t.b.call(t.session, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer)
	if err != nil {
		return err
	}
	if answer.ExceptionDetails != nil {
		return fmt.Errorf("evaluate %s: %s", expression, answer.ExceptionDetails.Exception.Description)
	}
	if err := json.Unmarshal(answer.Result.Value, result); err != nil {
		return fmt.Errorf("evaluate %s: %w", expression, err)
	}
	return nil
}

// Wait waits until an expression is true in the page.
func (t *Tab) Wait(ctx context.Context, limit time.Duration, expression string) error {
	return Wait(ctx, limit, func() error {
		var is bool
		if err := t.Eval("!!("+expression+")", &is); err != nil {
			return err
		}
		if !is {
			return fmt.Errorf("%s is not so", expression)
		}
		return nil
	})
}

// Screenshot is the page, or its beginning if it is long, as a PNG.
func (t *Tab) Screenshot() ([]byte, error) {
	var size struct{ Width, Height float64 }
	if err := t.Eval(`({width: innerWidth, height: Math.min(2500, document.documentElement.scrollHeight)})`, &size); err != nil {
		return nil, err
	}
	var shot struct{ Data string }
	err := t.b.call(t.session, "Page.captureScreenshot", map[string]any{
		"format": "png", "captureBeyondViewport": true, "clip": map[string]any{"x": 0, "y": 0, "width": size.Width, "height": size.Height, "scale": 1},
	}, &shot)
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(shot.Data)
}
