package ha

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many messages go through one system call.
const batchSize = 64

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// messages is the messages of one recvmmsg or sendmmsg on a packet socket. Nothing of it is allocated anew.
type messages struct {
	headers [batchSize]mmsghdr
	vectors [batchSize]unix.Iovec
	names   [batchSize]unix.RawSockaddrLinklayer
}

// init points the headers at the rest; they are not moved afterwards.
func (b *messages) init() {
	for i := range b.headers {
		h := &b.headers[i].header
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Namelen = unix.SizeofSockaddrLinklayer
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
	}
}

// set makes b the bytes of the message at i.
func (b *messages) set(i int, bytes []byte) {
	b.vectors[i].Base = &bytes[0]
	b.vectors[i].SetLen(len(bytes))
}

// A call that never waits needs no word to Go's scheduler, and does not lose its CPU to another goroutine by that.
func call(number uintptr, fd int, b *messages, from, to, flags int) (int, error) {
	n, _, e := unix.RawSyscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[from])), uintptr(to-from), uintptr(flags), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// receive fills the messages; how many is returned. unix.EAGAIN: there are none.
func (b *messages) receive(fd int) (int, error) {
	for i := range b.headers {
		b.headers[i].header.Namelen = unix.SizeofSockaddrLinklayer
	}
	return call(unix.SYS_RECVMMSG, fd, b, 0, batchSize, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
}

// send sends the messages from..to; it returns how many went out. The error is that of the first that did not, if no
// other did before it.
func (b *messages) send(fd, from, to int) (int, error) {
	return call(unix.SYS_SENDMMSG, fd, b, from, to, unix.MSG_DONTWAIT)
}
