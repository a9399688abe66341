package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// The virtual routers of the benchmark, by name.
const (
	absorbed = "absorbed" // its MASTER's adverts are
	filtered = "filtered"
)

var benchVRIDs = map[string]uint8{absorbed: 1, filtered: 2}

func benchRouters() []lb.Router {
	var list []lb.Router
	for name, vrid := range benchVRIDs {
		list = append(list, lb.Router{Name: name, Interface: benchInterface, Version: 3, VRID: vrid, Filter: true})
	}
	return list
}

// advertCases have a shorter way through the driver than the floors, by the writing of headers.
func advertCases(plane *xdp.Plane) []*benchCase {
	broken := benchAdvert(benchVRIDs[filtered])
	broken[len(broken)-20] ^= 1 // within the address
	list := []*benchCase{
		{name: "advert absorbed", stream: stream{frame: benchAdvert(benchVRIDs[absorbed])}, router: absorbed, fate: "absorbed"},
		{name: "advert dropped: checksum", stream: stream{frame: broken}, router: filtered, fate: "checksum"},
		{name: "advert dropped: too many", stream: stream{frame: benchAdvert(benchVRIDs[filtered])}, router: filtered, fate: "rate"},
		{name: "advert passed: not our VRID", stream: stream{frame: benchAdvert(99)}, answer: actionPass},
	}
	for _, c := range list {
		c.plane = plane
	}
	return list
}

// benchAdvert is the frame of an advert of version 3, of the least length that Ethernet has.
func benchAdvert(vrid uint8) []byte {
	source, group := netip.AddrFrom4([4]byte{192, 0, 2, 9}), netip.AddrFrom4([4]byte{224, 0, 0, 18})
	message := vrrp.Advert{
		Version: 3, VRID: vrid, Priority: 200, Interval: 10 * time.Millisecond, Addresses: []netip.Addr{shape{}.address()},
	}.Append(nil, source, group)
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 255, 112
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(message)))
	copy(ip[12:], source.AsSlice())
	copy(ip[16:], group.AsSlice())
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	mac := clientMAC()
	frame := slices.Concat([]byte{1, 0, 0x5e, 0, 0, 18}, mac[:], []byte{8, 0}, ip, message)
	return append(frame, make([]byte, 64-len(frame))...)
}

// absorb has the plane absorb one router's adverts until the FastPath is closed.
func absorb(plane *xdp.Plane) (*xdp.FastPath, error) {
	files, err := plane.Files()
	if err != nil {
		return nil, err
	}
	f, err := xdp.OpenFastPath(files.Words, files.Events)
	if err = errors.Join(err, files.Close()); err != nil {
		return nil, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("read clock: %w", err)
	}
	const long = 24 * time.Hour
	f.Renew(time.Duration(now.Nano()) + long)
	if !f.Absorb(plane.Slots()[absorbed], benchAdvert(benchVRIDs[absorbed]), long) {
		return nil, errors.Join(errors.New("the plane can't absorb"), f.Close())
	}
	return f, nil
}
