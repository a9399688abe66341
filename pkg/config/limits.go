package config

import (
	"fmt"
	"net/netip"

	"github.com/xdirector/xdirector/pkg/lb"
)

const (
	maxRate = 100_000_000
	bits6   = 64 // of a client's address count by default: a client has as many addresses as it likes
)

func (d *decoder) limits(v value, l *lb.Limits) {
	rate := func(to *lb.Rate) func(value) {
		return func(v value) {
			d.object(v,
				required("per_second", into(&to.PerSecond, integer[uint32](d, 1, maxRate)), "how many a second, like 100"),
				optional("burst", into(&to.Burst, integer[uint32](d, 1, maxRate))),
			)
		}
	}
	d.object(v,
		optional("prefix", into(&l.SourceBits, integer[uint8](d, 1, 128))),
		optional("new_connections", rate(&l.New)),
		optional("packets", rate(&l.Packets)),
	)
}

// completeLimits fills in what follows from the family of the service.
func completeLimits(s *Service) {
	l := &s.Limits
	if a := s.Key().Address; l.SourceBits == 0 && a.Is6() && (l.New != lb.Rate{} || l.Packets != lb.Rate{}) {
		l.SourceBits = bits6
	} else if int(l.SourceBits) == a.BitLen() {
		l.SourceBits = 0
	}
}

func (d *decoder) clients(to *[]netip.Prefix) func(value) {
	return func(v value) {
		*to = []netip.Prefix{}
		d.list(v, "networks", func(v value) {
			p, _ := d.network(v)
			*to = append(*to, p)
		})
	}
}

// clientLimits checks which clients a service has, and how they are told apart.
func (d *decoder) clientLimits(path string, s Service) {
	family := d.serviceFamily(path, s)
	have := map[netip.Prefix]string{}
	for _, list := range []struct {
		key      string
		prefixes []netip.Prefix
	}{{"allow", s.Limits.Allow}, {"deny", s.Limits.Deny}} {
		at := path + "." + list.key
		if d.written(at) && !d.reported(at) && len(list.prefixes) == 0 {
			d.wrongAt(at, "the list is empty; write at least one network, or leave it out")
		}
		for n, p := range list.prefixes {
			at := fmt.Sprintf("%s[%d]", at, n)
			if first, ok := taken(have, p, at); ok {
				d.wrongAt(at, "%s stands at %s already; write it once", p, first)
			}
			if own := d.families[at]; own != family && own != 0 && family != 0 {
				d.wrongAt(at, "it is IPv%d, the service's address is IPv%d; allowed: networks of the service's family, since its clients have no others", own, family)
			}
		}
	}
	at := path + ".limits.prefix"
	if bits := map[int]int{4: 32, 6: 128}[family]; bits != 0 && d.written(at) && !d.reported(at) && int(s.Limits.SourceBits) > bits {
		d.wrongAt(at, "%d is out of range; allowed: 1 to %d, the bits of a client's address", s.Limits.SourceBits, bits)
	}
	if at := path + ".limits"; d.written(at) && !d.reported(at) && s.Limits.New == (lb.Rate{}) && s.Limits.Packets == (lb.Rate{}) &&
		!d.written(at+".new_connections") && !d.written(at+".packets") {
		d.wrongAt(at, "there is no limit in it; write new_connections or packets, or leave it out")
	}
}
