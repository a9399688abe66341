package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/config"
)

// longestWait is how long we listen at most: a peer may have an interval of minutes.
const longestWait = 10 * time.Second

// listen hears who else is in the network: other virtual routers with our number or our addresses, and who answers for
// the addresses.
func listen(b *box) error {
	if b.Listen == 0 {
		return errNotAsked
	}
	used, err := b.used()
	if err != nil {
		return err
	}
	e, err := openEars(used)
	if err != nil {
		return err
	}
	defer e.close()
	wait := b.Listen
	for _, i := range b.instances() {
		wait = max(wait, min(i.AdvertInterval+i.AdvertInterval/2, longestWait))
	}
	if err := e.listenFor(wait, b.questions()); err != nil {
		return err
	}
	b.virtualRouters(e)
	return b.answerers(e)
}

// questions are all virtual addresses on their interfaces, and the real servers.
func (b *box) questions() []wanted {
	var list []wanted
	for _, i := range b.instances() {
		for _, a := range i.Held() {
			list = append(list, wanted{a.Prefix.Addr(), cmp.Or(a.Interface, i.Interface)})
		}
	}
	known := map[netip.Addr]bool{}
	for _, s := range b.services() {
		for _, r := range s.RealServers {
			if !known[r.Address] {
				list = append(list, wanted{address: r.Address})
			}
			known[r.Address] = true
		}
	}
	return list
}

// virtualRouters compares adverts with the instances.
func (b *box) virtualRouters(e *ears) {
	for _, h := range e.adverts {
		ours := false
		for _, i := range b.instances() {
			if i.Interface != h.on || i.IPv6() != h.source.Is6() {
				continue
			}
			shared := slices.ContainsFunc(h.advert.Addresses, func(a netip.Addr) bool {
				return slices.ContainsFunc(i.VirtualAddresses, func(v config.VirtualAddress) bool { return v.Prefix.Addr() == a })
			})
			same := h.advert.VRID == i.VirtualRouterID
			ours = ours || same || shared
			switch {
			case same && shared:
				b.peer(i, h)
			case same:
				free := freeRouterID(e, b.instances(), h.on)
				b.found(fmt.Sprintf("%s speaks as virtual router %d on %s, with other addresses (%s)", h.source, h.advert.VRID, h.on, joined(h.advert.Addresses)),
					"it is another group's: both groups break, as each obeys the other one's MASTER. Do the same on the other directors of instance "+i.Name,
					b.setKey(instancesList, i.Name, "virtual_router_id", strconv.Itoa(free)))
			case shared:
				b.found(fmt.Sprintf("%s holds addresses of instance %s as virtual router %d, not %d", h.source, i.Name, h.advert.VRID, i.VirtualRouterID),
					"two groups elect a MASTER each for the same address: it has two owners. One number, or one of them without the address",
					b.setKey(instancesList, i.Name, "virtual_router_id", strconv.Itoa(int(h.advert.VRID))))
			}
		}
		if !ours {
			b.fact("%s speaks as virtual router %d on %s (%s)", h.source, h.advert.VRID, h.on, joined(h.advert.Addresses))
		}
	}
}

// peer compares the settings that a MASTER and a BACKUP must share.
func (b *box) peer(i config.Instance, h heard) {
	b.fact("%s is MASTER of instance %s, with priority %d", h.source, i.Name, h.advert.Priority)
	if len(i.UnicastPeers) > 0 && !slices.Contains(i.UnicastPeers, h.source) {
		b.found(fmt.Sprintf("%s is MASTER of instance %s, and none of its unicast_peers", h.source, i.Name), "its adverts are refused, so this box becomes MASTER too",
			b.addTo(instancesList, i.Name, "unicast_peers", h.source.String()))
	}
	if h.advert.Version != i.Version {
		command := b.setKey(instancesList, i.Name, "version", strconv.Itoa(int(h.advert.Version)))
		if h.advert.Version == 2 {
			command += " && " + b.setKey(instancesList, i.Name, "advert_interval", h.advert.Interval.String())
		}
		b.found(fmt.Sprintf("%s speaks VRRP version %d, instance %s is of version %d", h.source, h.advert.Version, i.Name, i.Version),
			"neither accepts the other one's adverts: both are MASTER (version 3 has no authentication: take that out if it is there)", command)
		return
	}
	if i.Version == 2 && h.advert.Interval != i.AdvertInterval {
		b.found(fmt.Sprintf("the adverts of %s say %s, instance %s has advert_interval: %s", h.source, h.advert.Interval, i.Name, i.AdvertInterval), "with version 2 such adverts are refused: both are MASTER",
			b.setKey(instancesList, i.Name, "advert_interval", h.advert.Interval.String()))
	}
}

// freeRouterID is a number that nobody uses on an interface.
func freeRouterID(e *ears, instances []config.Instance, on string) int {
	for id := 1; id < 255; id++ {
		taken := slices.ContainsFunc(e.adverts, func(h heard) bool { return h.on == on && int(h.advert.VRID) == id }) ||
			slices.ContainsFunc(instances, func(i config.Instance) bool { return i.Interface == on && int(i.VirtualRouterID) == id })
		if !taken {
			return id
		}
	}
	return 255
}

// answerers finds boxes that answer for a virtual address and are not its MASTER.
func (b *box) answerers(e *ears) error {
	all, err := b.links()
	if err != nil {
		return err
	}
	for _, vip := range b.virtualAddresses() {
		for _, mac := range e.owners[vip] {
			isMaster := slices.ContainsFunc(e.adverts, func(h heard) bool { return h.mac == mac && slices.Contains(h.advert.Addresses, vip) })
			isOurs := slices.ContainsFunc(all, func(l link) bool { return l.MAC == mac })
			if isMaster || isOurs || strings.HasPrefix(mac, "00:00:5e:00:0") || b.excludedOf(e, vip, mac) {
				continue
			}
			if server := b.serverWith(e, mac); server.IsValid() {
				b.foundOn(server.String(), fmt.Sprintf("real server %s (%s) answers for %s", server, mac, vip), "clients go to it and past the director",
					set(conf("all", "arp_ignore", 1), conf("all", "arp_announce", 2)))
				continue
			}
			b.foundOn(mac, fmt.Sprintf("%s is in use already, by a box with the MAC address %s that sends no adverts", vip, mac),
				"two boxes answer for it, and clients reach now one, now the other. A director that was stopped hard may be one: look there before you remove it",
				"ip address flush to "+netip.PrefixFrom(vip, vip.BitLen()).String())
		}
	}
	return nil
}

// excludedOf says whether a box that answers is MASTER of an instance that holds the address without advertising it.
func (b *box) excludedOf(e *ears, vip netip.Addr, mac string) bool {
	return slices.ContainsFunc(b.instances(), func(i config.Instance) bool {
		holds := slices.ContainsFunc(i.Held(), func(v config.VirtualAddress) bool { return v.Prefix.Addr() == vip })
		return holds && slices.ContainsFunc(e.adverts, func(h heard) bool { return h.mac == mac && h.on == i.Interface && h.advert.VRID == i.VirtualRouterID })
	})
}

// serverWith returns the real server that has a MAC address.
func (b *box) serverWith(e *ears, mac string) netip.Addr {
	for _, s := range b.services() {
		for _, r := range s.RealServers {
			if slices.Contains(e.owners[r.Address], mac) {
				return r.Address
			}
		}
	}
	return netip.Addr{}
}

func joined(addresses []netip.Addr) string {
	var text []string
	for _, a := range addresses {
		text = append(text, a.String())
	}
	return strings.Join(text, ", ")
}

// directorsOf lists adverts that hold one of the addresses.
func directorsOf(e *ears, vips []netip.Addr) []heard {
	return slices.DeleteFunc(slices.Clone(e.adverts), func(h heard) bool {
		return !slices.ContainsFunc(h.advert.Addresses, func(a netip.Addr) bool { return slices.Contains(vips, a) })
	})
}
