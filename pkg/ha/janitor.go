package ha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// janitor sets the devices of virtual MACs down and removes them. The kernel waits 14 ms for each of these, with its
// configuration locked: addresses of other instances, which have to go or come at once, must not stand in line behind
// hundreds of them.
type janitor struct {
	log    *slog.Logger
	handle *netlink.Handle
	socket *nl.NetlinkSocket // for what the handle has no method for
	wake   chan struct{}
	ended  chan struct{}
	done   sync.WaitGroup

	mu   sync.Mutex // held while one is set down
	down map[int]bool

	removing sync.Mutex // held while some are removed
	waiting  struct {
		sync.Mutex
		list []*removal
	}
}

// removal is a device that shall be removed.
type removal struct {
	index int
	done  bool
	err   error
}

// openJanitor opens its socket in the network namespace of the calling thread.
func openJanitor(log *slog.Logger) (*janitor, error) {
	j := &janitor{log: log, wake: make(chan struct{}, 1), ended: make(chan struct{}), down: map[int]bool{}}
	var err error
	if j.handle, err = newHandle(); err != nil {
		return nil, err
	}
	if j.socket, err = nl.Subscribe(unix.NETLINK_ROUTE); err != nil {
		j.handle.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	j.done.Go(j.run)
	return j, nil
}

func (j *janitor) close() {
	close(j.ended)
	j.done.Wait()
	j.socket.Close()
	j.handle.Close()
}

// setDown sets a device down soon.
func (j *janitor) setDown(index int) {
	j.mu.Lock()
	j.down[index] = true
	j.mu.Unlock()
	poke(j.wake)
}

// keep takes setDown back. When it returns, none is under way.
func (j *janitor) keep(index int) {
	j.mu.Lock()
	delete(j.down, index)
	j.mu.Unlock()
}

func (j *janitor) run() {
	for {
		select {
		case <-j.ended:
			return
		case <-j.wake:
		}
		for {
			took, more := j.next()
			if !more {
				break
			}
			select { // as long again belongs to those who are in a hurry
			case <-j.ended:
				return
			case <-time.After(took):
			}
		}
	}
}

// next sets one device down.
func (j *janitor) next() (took time.Duration, more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for index := range j.down {
		delete(j.down, index)
		began := time.Now()
		if err := j.handle.LinkSetDown(device(index)); err != nil && !errors.Is(err, unix.ENODEV) {
			j.log.Error("virtual MAC not set down: this box takes frames to it although it is not MASTER", "ifindex", index, "error", err)
		}
		return time.Since(began), true
	}
	return 0, false
}

// remove removes a device, with those that others want removed meanwhile in one step.
func (j *janitor) remove(index int) error {
	j.keep(index)
	r := &removal{index: index}
	j.waiting.Lock()
	j.waiting.list = append(j.waiting.list, r)
	j.waiting.Unlock()
	j.removing.Lock()
	defer j.removing.Unlock()
	if r.done {
		return r.err
	}
	j.waiting.Lock()
	list := j.waiting.list
	j.waiting.list = nil
	j.waiting.Unlock()
	var indexes []int
	for _, o := range list {
		indexes = append(indexes, o.index)
	}
	err := j.removeAll(indexes)
	for _, o := range list {
		o.done, o.err = true, err
	}
	return err
}

// doomed is the group of devices that are about to be removed; nobody else uses a number like that.
const doomed = 0x76727270

// removeAll removes devices; one that is no more is none to remove. A request can name one device or a group, and the
// kernel waits once for each request.
func (j *janitor) removeAll(indexes []int) error {
	if len(indexes) == 1 {
		if err := j.handle.LinkDel(device(indexes[0])); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove a macvlan: %w", err)
		}
		return nil
	}
	marked := 0
	for _, index := range indexes {
		switch err := j.handle.LinkSetGroup(device(index), doomed); {
		case err == nil:
			marked++
		case !errors.Is(err, unix.ENODEV):
			return fmt.Errorf("mark a macvlan for removal: %w", err)
		}
	}
	if marked == 0 {
		return nil
	}
	request := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_GROUP, binary.NativeEndian.AppendUint32(nil, doomed)))
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: j.socket}}
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("remove macvlans: %w", err)
	}
	return nil
}
