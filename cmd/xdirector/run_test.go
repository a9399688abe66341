package main

import (
	"context"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
)

// signalled is a director that only notes what signals do to it.
type signalled struct {
	reloads chan chan struct{} // each reload waits for an answer
	stops   int
}

func (s *signalled) Reload(context.Context) error {
	answer := make(chan struct{})
	s.reloads <- answer
	<-answer
	return nil
}

func (s *signalled) Stop() { s.stops++ }

func TestManySignalsToReloadMakeOneMoreReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &signalled{reloads: make(chan chan struct{})}
		signals, finished := make(chan os.Signal), make(chan struct{})
		go listen(t.Context(), d, signals, finished)
		signals <- syscall.SIGHUP
		first := <-d.reloads
		for range 100 {
			signals <- syscall.SIGHUP
		}
		signals <- syscall.SIGTERM // not held up by the reload
		signals <- syscall.SIGTERM
		synctest.Wait()
		if d.stops != 2 {
			t.Errorf("%d of 2 stops carried out during a reload", d.stops)
		}
		close(first)
		close(<-d.reloads)
		synctest.Wait()
		select {
		case <-d.reloads:
			t.Error("a third reload, want one for all signals that came during the first")
		default:
		}
		close(finished)
	})
}
