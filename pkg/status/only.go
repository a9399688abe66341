package status

import (
	"net/netip"
	"path"
	"slices"
)

// Only is the picture with nothing but the instances and services that are asked for: by name, with * and ? as in file
// names, by virtual address, or by the address of a real server. missing is the first of the names that nothing has;
// empty: each has something.
func (s *Status) Only(names []string) (picture *Status, missing string) {
	o := only{names: names, used: make([]bool, len(names))}
	for _, name := range names {
		o.addresses = append(o.addresses, bare(name))
	}
	p := *s
	p.Instances, p.Services, p.Overrides = []Instance{}, []Service{}, nil
	for _, i := range s.Instances {
		if o.named(i.Name) || o.anyAddress(i.Addresses...) {
			p.Instances = append(p.Instances, i)
		}
	}
	found := map[string]bool{}
	for _, v := range s.Services {
		addresses := []string{v.Address}
		for _, r := range v.RealServers {
			addresses = append(addresses, r.Address)
		}
		if o.named(v.Name) || o.anyAddress(addresses...) {
			p.Services = append(p.Services, v)
			found[v.Name] = true
		}
	}
	for _, v := range s.Overrides {
		if found[v.Service] {
			p.Overrides = append(p.Overrides, v)
		}
	}
	if n := slices.Index(o.used, false); n >= 0 {
		return &p, names[n]
	}
	return &p, ""
}

// only is what was asked for, and what of it was found.
type only struct {
	names     []string
	addresses []netip.Addr // that the names are; not valid: none
	used      []bool
}

func (o only) named(name string) bool {
	found := false
	for n, wanted := range o.names {
		if matches, err := path.Match(wanted, name); matches || err != nil && wanted == name {
			o.used[n], found = true, true
		}
	}
	return found
}

func (o only) anyAddress(list ...string) bool {
	found := false
	for n, wanted := range o.addresses {
		if wanted.IsValid() && slices.ContainsFunc(list, func(text string) bool { return bare(text) == wanted }) {
			o.used[n], found = true, true
		}
	}
	return found
}

// bare is an address without its prefix length; not valid: text is none.
func bare(text string) netip.Addr {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr()
	}
	address, _ := netip.ParseAddr(text)
	return address
}
