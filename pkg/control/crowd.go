package control

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// crowd is a listener that keeps so many connections at most. When there are more, who has been waiting the longest has to go:
// one whose request is not complete yet, or that doesn't take its answer. So clients that are slow, or do nothing at all, keep nobody out
// for long, however many they are. A request that the director is working on is never given up, nor is a stream.
type crowd struct {
	net.Listener
	most     int
	patience time.Duration // with each client, also when there are too many
	left     chan struct{} // one value: it may be another one's turn
	closed   chan struct{}
	close    sync.Once

	mu     sync.Mutex
	guests []*guest
}

// guest is one connection of a crowd.
type guest struct {
	net.Conn
	crowd *crowd
	since time.Time // that the client has been waited for; zero: it waits for us. Under the lock of the crowd
}

func newCrowd(l net.Listener, most int, patience time.Duration) *crowd {
	return &crowd{Listener: l, most: most, patience: patience, left: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Accept returns the next connection as soon as there is room for it.
func (c *crowd) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	for {
		g, wait := c.seat(conn)
		if g != nil {
			return g, nil
		}
		select {
		case <-c.left:
		case <-time.After(wait):
		case <-c.closed:
			conn.Close()
			return nil, net.ErrClosed
		}
	}
}

// seat makes room for a connection, or says when there may be some.
func (c *crowd) seat(conn net.Conn) (*guest, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if len(c.guests) >= c.most {
		var slowest *guest
		for _, g := range c.guests {
			if !g.since.IsZero() && (slowest == nil || g.since.Before(slowest.since)) {
				slowest = g
			}
		}
		if slowest == nil {
			return nil, time.Minute // until one of them has its answer
		}
		if waited := now.Sub(slowest.since); waited < c.patience {
			return nil, c.patience - waited
		}
		slowest.Conn.Close() // which ends what is read from it, or written to it
		c.remove(slowest)
	}
	g := &guest{Conn: conn, crowd: c, since: now}
	c.guests = append(c.guests, g)
	return g, 0
}

func (c *crowd) remove(g *guest) {
	if n := slices.Index(c.guests, g); n >= 0 {
		c.guests = slices.Delete(c.guests, n, n+1)
	}
	c.wake()
}

func (c *crowd) wake() {
	select {
	case c.left <- struct{}{}:
	default:
	}
}

// Close ends listening.
func (c *crowd) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

// Close ends the connection, and makes room.
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	g.crowd.remove(g)
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}

// waits says from when on the client is waited for; zero: it waits for us.
func (g *guest) waits(since time.Time) {
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	g.since = since
	if !since.IsZero() {
		g.crowd.wake()
	}
}

// guestKey is where the context of a request has its connection.
type guestKey struct{}

func withGuest(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, guestKey{}, c)
}

// working says that the request is complete, and that its answer is worked on.
func working(ctx context.Context) {
	if g, ok := ctx.Value(guestKey{}).(*guest); ok {
		g.waits(time.Time{})
	}
}

// answering says that the client is given something, which it has to take.
func answering(ctx context.Context) {
	if g, ok := ctx.Value(guestKey{}).(*guest); ok {
		g.waits(time.Now())
	}
}
