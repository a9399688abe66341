package ha

import "github.com/vishvananda/netlink"

// kernel is a netlink handle for goroutines that wait for other things too. An answer is read into 64 kB of stack, which a
// goroutine would keep until then: so each question is put by one that ends with the answer. They come one after
// the other anyway.
type kernel struct{ *netlink.Handle }

// aside runs f on a stack that is given back.
func aside[T any](f func() (T, error)) (T, error) {
	var result T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err = f()
	}()
	<-done
	return result, err
}

func asideErr(f func() error) error {
	_, err := aside(func() (struct{}, error) { return struct{}{}, f() })
	return err
}

func (k kernel) AddrAdd(l netlink.Link, a *netlink.Addr) error {
	return asideErr(func() error { return k.Handle.AddrAdd(l, a) })
}

func (k kernel) AddrDel(l netlink.Link, a *netlink.Addr) error {
	return asideErr(func() error { return k.Handle.AddrDel(l, a) })
}

func (k kernel) AddrList(l netlink.Link, family int) ([]netlink.Addr, error) {
	return aside(func() ([]netlink.Addr, error) { return k.Handle.AddrList(l, family) })
}

func (k kernel) RouteAdd(r *netlink.Route) error {
	return asideErr(func() error { return k.Handle.RouteAdd(r) })
}

func (k kernel) RouteDel(r *netlink.Route) error {
	return asideErr(func() error { return k.Handle.RouteDel(r) })
}

func (k kernel) LinkAdd(l netlink.Link) error {
	return asideErr(func() error { return k.Handle.LinkAdd(l) })
}

func (k kernel) LinkSetUp(l netlink.Link) error {
	return asideErr(func() error { return k.Handle.LinkSetUp(l) })
}

func (k kernel) LinkByName(name string) (netlink.Link, error) {
	return aside(func() (netlink.Link, error) { return k.Handle.LinkByName(name) })
}

func (k kernel) LinkByIndex(index int) (netlink.Link, error) {
	return aside(func() (netlink.Link, error) { return k.Handle.LinkByIndex(index) })
}
