package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// kind says what a message is about. Each is a whole wish or a whole picture: a newer one replaces an older one that
// was not sent yet.
type kind byte

const (
	kindConfig   kind = iota + 1 // agent to election: settings
	kindTrack                    // agent to election: map of instance to ha.Track
	kindMaps                     // agent to election: the descriptors of the plane's maps for VRRP
	kindStop                     // supervisor to both: hand over and end; agent to election: the same
	kindPrepared                 // election to supervisor: it can begin at once
	kindReady                    // election to supervisor: list of ha.ReadyPacket
	kindReport                   // election to agent: ha.Report
	kindFailed                   // election to supervisor, and to an agent that starts: why it could not start
	kindElection                 // supervisor to agent: Process
	kindGo                       // supervisor to election: take part, see start
	kindReload                   // supervisor to agent: read the configuration again
	kindLeave                    // supervisor to agent: end at once and touch nothing
	kindNotify                   // agent to supervisor: for the service manager; never replaced
)

// message is one JSON document, and the descriptors that come with it.
type message struct {
	kind  kind
	body  []byte
	files []*os.File
}

// Bounds of a message: 1,000 instances make a report of about 1 MB.
const (
	headerSize = 5 // length of the body, kind
	maxBody    = 64 << 20
	maxFiles   = 16
)

// conn is one end of the socket pair between the supervisor and a child.
type conn struct{ *os.File }

// newConn takes over the descriptor.
func newConn(fd int) (*conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("use socket pair: %w", err)
	}
	unix.CloseOnExec(fd)
	return &conn{os.NewFile(uintptr(fd), "socket pair")}, nil
}

// write sends the first part of b that there is room for, and waits until there is some.
func (c *conn) write(b, rights []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		n, failed = unix.SendmsgN(int(fd), b, rights, nil, unix.MSG_NOSIGNAL)
		return !again(failed)
	})
	return n, errors.Join(err, failed)
}

// read waits for the next part, at most as long as b, and for the descriptors that came with it.
func (c *conn) read(b, rights []byte) (n, size int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, size, _, _, failed = unix.Recvmsg(int(fd), b, rights, unix.MSG_CMSG_CLOEXEC)
		return !again(failed)
	})
	if err = errors.Join(err, failed); err == nil && n == 0 {
		err = io.EOF
	}
	return n, size, err
}

func again(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }

func (c *conn) send(m message) error {
	header := make([]byte, headerSize)
	binary.BigEndian.PutUint32(header, uint32(len(m.body)))
	header[4] = byte(m.kind)
	var rights []byte
	if len(m.files) > 0 {
		var fds []int
		for _, f := range m.files {
			fds = append(fds, int(f.Fd()))
		}
		rights = unix.UnixRights(fds...)
	}
	// The kernel takes part of a long message; the descriptors go with its first byte.
	for _, b := range [][]byte{header, m.body} {
		for len(b) > 0 {
			n, err := c.write(b, rights)
			if err != nil {
				return err
			}
			b, rights = b[n:], nil
		}
	}
	runtime.KeepAlive(m.files) // nobody closes them: the last one to let go of them does
	return nil
}

func (c *conn) receive() (message, error) {
	var m message
	header := make([]byte, headerSize)
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	// Reads of the header alone take the descriptors, those of the body never reach the next message.
	for at := 0; at < headerSize; {
		n, size, err := c.read(header[at:], rights)
		if err != nil {
			return m, err
		}
		files, err := parseRights(rights[:size])
		m.files = append(m.files, files...)
		if err != nil {
			return m, err
		}
		at += n
	}
	length := binary.BigEndian.Uint32(header)
	if length > maxBody {
		return m, fmt.Errorf("message of %d bytes", length)
	}
	m.kind, m.body = kind(header[4]), make([]byte, length)
	_, err := io.ReadFull(c, m.body)
	return m, err
}

func parseRights(b []byte) ([]*os.File, error) {
	if len(b) == 0 {
		return nil, nil
	}
	list, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	var files []*os.File
	for _, c := range list {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			return files, fmt.Errorf("read descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "map"))
		}
	}
	return files, nil
}

// outbox sends messages in the order of their first kind, each as new as it is at that moment. A peer that doesn't
// read holds nobody up, and makes it no longer.
type outbox struct {
	mu     sync.Mutex
	queue  []message
	closed bool
	wake   chan struct{} // capacity 1
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

// put leaves a message for the writer. Never blocks.
func (o *outbox) put(m message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if m.kind != kindNotify {
		for i := range o.queue {
			if o.queue[i].kind == m.kind {
				o.queue[i] = m
				return
			}
		}
	}
	o.queue = append(o.queue, m)
	poke(o.wake)
}

// close has run end when everything is sent.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed = true
		poke(o.wake)
	}
}

// take returns what is to be sent next; false: nothing yet, and done says whether that will stay so.
func (o *outbox) take() (m message, ok, done bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return m, false, o.closed
	}
	m = o.queue[0]
	o.queue[0] = message{} // a report is large
	o.queue = o.queue[1:]
	return m, true, false
}

// run sends until close, or until the peer is gone.
func (o *outbox) run(c *conn) {
	for {
		m, ok, done := o.take()
		switch {
		case ok:
			if c.send(m) != nil {
				return // the reader of the connection hears of it too
			}
		case done:
			return
		default:
			<-o.wake
		}
	}
}

// poke wakes the reader of a channel of capacity 1, unless that is going to wake anyway.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
