package ipvs

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// box is one machine of a test network: a network namespace.
type box struct {
	t  *testing.T
	ns *os.File
}

// newBox makes a namespace on a thread that ends at once; the file keeps it.
func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{t: t}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			b.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.ns.Close() })
	b.must("set lo up", func() error { return netlink.LinkSetUp(link("lo")) })
	return b
}

// do runs f inside; sockets made there stay there.
func (b *box) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Setns(int(b.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (b *box) must(what string, f func() error) {
	b.t.Helper()
	if err := b.do(f); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// link finds a link of the thread's namespace.
func link(name string) netlink.Link {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name}} // the next call fails, and says why
	}
	return l
}

func addAddress(name, prefix string) error {
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(link(name), a)
}

// The addresses of the test network; real server i, from 1, is 10.77.0.(20+i).
const (
	vip      = "10.77.0.100"
	director = "10.77.0.11"
)

// lan is a client with two addresses, a director that has the virtual address, and real servers, on one switch.
type lan struct {
	client, director *box
	servers          []*box
}

func newLAN(t *testing.T, servers int) *lan {
	t.Helper()
	sw := newBox(t)
	sw.must("make bridge", func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(bridge)
	})
	join := func(b *box, n int, prefixes ...string) {
		t.Helper()
		sw.must("plug in", func() error {
			port := netlink.NewVeth(netlink.LinkAttrs{Name: fmt.Sprintf("p%d", n)})
			port.PeerName, port.PeerNamespace = "eth0", netlink.NsFd(int(b.ns.Fd()))
			if err := netlink.LinkAdd(port); err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(link(port.Name), link("br0")); err != nil {
				return err
			}
			return netlink.LinkSetUp(link(port.Name))
		})
		b.must("set eth0 up", func() error { return netlink.LinkSetUp(link("eth0")) })
		for _, prefix := range prefixes {
			b.must("add "+prefix, func() error { return addAddress("eth0", prefix) })
		}
	}
	l := &lan{client: newBox(t), director: newBox(t)}
	join(l.client, 1, "10.77.0.1/24", "10.77.0.2/24")
	join(l.director, 2, director+"/24", vip+"/32")
	for i := 1; i <= servers; i++ {
		b := newBox(t)
		join(b, 2+i, fmt.Sprintf("10.77.0.%d/24", 20+i))
		b.must("carry the virtual address", func() error {
			for name, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2"} {
				if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/"+name, []byte(value), 0); err != nil {
					return err
				}
			}
			return addAddress("lo", vip+"/32")
		})
		b.serve(byte('0' + i))
		l.servers = append(l.servers, b)
	}
	return l
}

// sendTo makes the client send to the virtual address by way of a box, whoever answers ARP requests for it.
func (l *lan) sendTo(b *box) {
	l.client.t.Helper()
	var mac net.HardwareAddr
	b.must("find the MAC", func() error { mac = link("eth0").Attrs().HardwareAddr; return nil })
	l.client.must("set neighbour", func() error {
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: link("eth0").Attrs().Index, IP: net.ParseIP(vip), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	})
}

// serve answers with a name of one byte: on TCP when a connection opens and for each byte that comes, until the client
// sends a dot, which makes it close first; on UDP for each datagram.
func (b *box) serve(name byte) {
	b.t.Helper()
	b.serveAt(name, "tcp4", vip+":80")
	var udp net.PacketConn
	b.must("listen", func() (err error) {
		udp, err = net.ListenPacket("udp4", vip+":53")
		return err
	})
	b.t.Cleanup(func() { udp.Close() })
	go func() {
		in := make([]byte, 64)
		for {
			_, from, err := udp.ReadFrom(in)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo([]byte{name}, from)
		}
	}()
}

// serveAt answers so at a TCP address.
func (b *box) serveAt(name byte, network, address string) {
	b.t.Helper()
	var listener net.Listener
	b.must("listen", func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
	b.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := make([]byte, 1)
				for {
					if _, err := c.Write([]byte{name}); err != nil {
						return
					}
					if _, err := c.Read(in); err != nil || in[0] == '.' {
						return
					}
				}
			}()
		}
	}()
}

// limit is much longer than anything takes, on a slow machine too.
const limit = 10 * time.Second

// dial connects from a local address, ":0" for any, to the virtual address.
func (l *lan) dial(network, local string) (net.Conn, error) {
	if network == "udp4" {
		return l.dialTo(network, local, vip+":53")
	}
	return l.dialTo(network, local, vip+":80")
}

func (l *lan) dialTo(network, local, to string) (net.Conn, error) {
	var c net.Conn
	err := l.client.do(func() (err error) {
		d := net.Dialer{Timeout: limit, Control: func(_, _ string, raw syscall.RawConn) (err error) {
			if control := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }); control != nil {
				return control
			}
			return err
		}}
		place := netip.MustParseAddrPort(local)
		d.LocalAddr = net.TCPAddrFromAddrPort(place)
		if network == "udp4" {
			d.LocalAddr = net.UDPAddrFromAddrPort(place)
		}
		c, err = d.DialContext(context.Background(), network, to)
		if err != nil {
			return err
		}
		return c.SetDeadline(time.Now().Add(limit))
	})
	return c, err
}

const anyPort = "10.77.0.1:0"

// open connects and returns the name of the real server with the open connection.
func (l *lan) open(t *testing.T, local string) (net.Conn, string) {
	t.Helper()
	c, err := l.dial("tcp4", local)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, answer(t, c)
}

// ask opens a connection and ends it, the real server first; it returns the real server's name.
func (l *lan) ask(t *testing.T, local string) string {
	t.Helper()
	c, name := l.open(t, local)
	if _, err := c.Write([]byte(".")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("read %d bytes after the end: %v", n, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// askTimes asks from the first address, each time from another port.
func (l *lan) askTimes(t *testing.T, n int) (names string) {
	t.Helper()
	for range n {
		names += l.ask(t, anyPort)
	}
	return names
}

func answer(t *testing.T, c net.Conn) string {
	t.Helper()
	in := make([]byte, 1)
	if _, err := c.Read(in); err != nil {
		t.Fatal(err)
	}
	return string(in)
}

// again asks on an open connection or UDP socket.
func again(t *testing.T, c net.Conn) string {
	t.Helper()
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	return answer(t, c)
}
