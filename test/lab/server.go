package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// nginxConfig answers every request with the node's name. One process without a master: workers of a killed master
// would live on. Temporary folders: the compiled-in ones belong to the system's nginx.
const nginxConfig = `daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 2048; }
http {
    access_log off;
    client_body_temp_path tmp;
    proxy_temp_path tmp;
    fastcgi_temp_path tmp;
    uwsgi_temp_path tmp;
    scgi_temp_path tmp;
    default_type text/plain;
    server {
        listen %[1]d backlog=1024;
        listen [::]:%[1]d backlog=1024;
        location / { return 200 "%[2]s\n"; }
        location = /download { root %[4]s; limit_rate %[3]d; sendfile off; }
    }
}
`

const (
	downloadSize = 3 << 20
	downloadRate = 512 << 10 // bytes per second
)

// OfferDownload gives every web server a /download, which it returns: bytes without a pattern, sent slowly, so that it takes
// some seconds.
func (l *Lab) OfferDownload() ([]byte, error) {
	b := make([]byte, downloadSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	if err := os.WriteFile(filepath.Join(l.Dir, "download"), b, 0o644); err != nil {
		return nil, fmt.Errorf("offer a download: %w", err)
	}
	return b, nil
}

// StartNginx runs a web server on all addresses of the node; its pages are the node's name, but see OfferDownload. It returns when the server
// answers.
func (n *Node) StartNginx(port uint16) (*Process, error) {
	dir := n.path(fmt.Sprintf("nginx-%d", port))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start nginx on %s: %w", n.Name, err)
	}
	conf := dir + "/nginx.conf"
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConfig, port, n.Name, downloadRate, n.lab.Dir), 0o644); err != nil {
		return nil, fmt.Errorf("start nginx on %s: %w", n.Name, err)
	}
	p, err := n.lab.start(n.t, n.Name+"/nginx", dir, nil, "nginx", "-e", "stderr", "-p", dir, "-c", conf)
	if err != nil {
		return nil, err
	}
	err = Wait(context.Background(), 10*time.Second, func() error {
		if !p.Running() {
			return fmt.Errorf("nginx on %s ended: %s", n.Name, p.Log())
		}
		r := n.Get(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), time.Second)
		if r.Outcome != OK {
			return fmt.Errorf("nginx on %s: %s", n.Name, r.Outcome)
		}
		return nil
	})
	return p, err
}

// Web is a web server within this process: it costs an emulated machine much less than nginx.
type Web struct {
	server  http.Server
	stopped atomic.Bool
}

// StartWeb answers every request to a port of the node, on all its addresses, with the node's name.
func (n *Node) StartWeb(port uint16) (*Web, error) {
	l, err := n.Listen(fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, fmt.Errorf("start a web server on %s: %w", n.Name, err)
	}
	w := &Web{}
	w.server.Handler = http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(answer, n.Name) // a client that has gone is not ours to care for
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.server.Serve(l) // until Kill
	}()
	n.lab.onClose(func() { w.Kill(); <-done })
	return w, nil
}

// Kill closes the port and all connections.
func (w *Web) Kill() {
	w.stopped.Store(true)
	_ = w.server.Close()
}

// Running says whether the server has not been killed.
func (w *Web) Running() bool { return !w.stopped.Load() }

// StartUDPEcho answers every datagram to the addresses with the node's name, a space, and what it got.
func (n *Node) StartUDPEcho(addresses ...netip.AddrPort) error {
	for _, a := range addresses {
		var c *net.UDPConn
		err := n.t.do(func() (err error) {
			// Bound to the one address, so that this is the source of the answer.
			c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(a))
			return err
		})
		if err != nil {
			return fmt.Errorf("start UDP echo on %s: %w", n.Name, err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.echo(c)
		}()
		n.lab.onClose(func() { _ = c.Close(); <-done })
	}
	return nil
}

func (n *Node) echo(c *net.UDPConn) {
	b := make([]byte, 1<<16)
	for {
		size, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = c.WriteToUDPAddrPort(append([]byte(n.Name+" "), b[:size]...), from)
		}
	}
}
