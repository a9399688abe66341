package ha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"reflect"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// guardPriority places our rules behind IPVS, which takes the packets of its services out of the same hook at 98 and
// 99: so they are never seen here.
const guardPriority = 200

// guard keeps packets for virtual addresses from the sockets of this box: "If it is False, the Active Router MUST NOT
// accept packets addressed to the IPvX address of the address owner as its own if it is not the owner" (RFC 9568, 6.1:
// Accept_Mode). It is one table of nftables of our own; nobody else's rules are touched. The table is there in every
// state: while the addresses are not, it matches nothing.
type guard struct {
	log   *slog.Logger
	table string

	mu      sync.Mutex
	guarded map[string]guarded // by instance
	version int
	failed  bool // to be written

	writing sync.Mutex
	conn    *nftables.Conn
	err     error // why there is no conn
	written int
}

// guarded is what is kept away from this box for one instance.
type guarded struct {
	addresses []netip.Addr
	services  []lb.ServiceKey // come through all the same: a director may be a real server too
}

// openGuard opens it in the network namespace of the calling thread. The table has a name of its own for each
// state_dir, so that several directors on one box don't take each other's.
func openGuard(stateDir string, log *slog.Logger) *guard {
	g := &guard{log: log, table: guardTable(stateDir), guarded: map[string]guarded{}}
	g.conn, g.err = nftables.New(nftables.AsLasting())
	return g
}

func guardTable(stateDir string) string {
	if whole, err := filepath.Abs(stateDir); err == nil {
		stateDir = whole
	}
	sum := fnv.New32a()
	sum.Write([]byte(stateDir))
	return fmt.Sprintf("xdirector-%08x", sum.Sum32())
}

func (g *guard) close() {
	if g.conn != nil {
		_ = g.conn.CloseLasting() // nothing can be lost by that
	}
}

// guard keeps away what shall not reach this box.
func (h *holder) guard(w wish) error {
	i := w.instance
	if i.Accept || i.VRRP.Priority == vrrp.Owner {
		return h.keepAway(i.Name, nil, nil)
	}
	var addresses []netip.Addr
	for _, v := range i.VirtualAddresses {
		if !h.foreign[v.Prefix.Addr()] { // an administrator's may be the one he is logged in by
			addresses = append(addresses, v.Prefix.Addr())
		}
	}
	return h.keepAway(i.Name, addresses, i.Services)
}

func (h *holder) keepAway(instance string, addresses []netip.Addr, services []lb.ServiceKey) error {
	version, news := h.host.guard.put(instance, addresses, services)
	if !news {
		return nil
	}
	return h.host.crew.wait(func() error { return h.host.guard.enforce(version) })
}

// put replaces what is kept away for an instance. news: something is to be enforced, and the caller must wait for that. What
// failed is news with the next call, of whomever.
func (g *guard) put(instance string, addresses []netip.Addr, services []lb.ServiceKey) (version int, news bool) {
	wanted := guarded{addresses, services}
	g.mu.Lock()
	defer g.mu.Unlock()
	old, was := g.guarded[instance]
	switch {
	case len(addresses) == 0 && was:
		delete(g.guarded, instance)
		g.version++
	case len(addresses) > 0 && !reflect.DeepEqual(old, wanted):
		g.guarded[instance] = wanted
		g.version++
	default:
		return g.version, g.failed
	}
	return g.version, true
}

// enforce returns when what was put is in force, by a later caller perhaps, or can't be, which is told once.
func (g *guard) enforce(version int) error {
	g.writing.Lock()
	defer g.writing.Unlock()
	if g.written >= version {
		return nil
	}
	g.mu.Lock()
	all := maps.Clone(g.guarded)
	version, failed := g.version, g.failed
	g.mu.Unlock()
	err := g.write(all)
	switch {
	case err != nil && !failed:
		g.log.Error("accept: false is not in force: packets for virtual addresses reach the programs of this box; is nf_tables in the kernel? Tried again every few seconds", "error", err)
	case err == nil && failed:
		g.log.Info("accept: false is in force")
	}
	if err == nil {
		g.written = version
	}
	g.mu.Lock()
	g.failed = err != nil
	g.mu.Unlock()
	return err
}

// write replaces the whole table in one step.
func (g *guard) write(all map[string]guarded) error {
	if g.err != nil {
		return fmt.Errorf("open nftables: %w", g.err)
	}
	t := &nftables.Table{Name: g.table, Family: nftables.TableFamilyINet}
	g.conn.AddTable(t) // so that there is one to be deleted
	g.conn.DelTable(t)
	if len(all) == 0 {
		return g.flush()
	}
	g.conn.AddTable(t)
	priority := nftables.ChainPriority(guardPriority)
	accept := nftables.ChainPolicyAccept
	chain := g.conn.AddChain(&nftables.Chain{Name: "input", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
		Priority: &priority, Policy: &accept})
	rule := func(parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		g.conn.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: all})
	}
	// What this box says to itself did not come from the network.
	rule([]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint16(unix.ARPHRD_LOOPBACK)}}, verdict(expr.VerdictAccept))
	var errs []error
	for _, f := range []family{rules4, rules6} {
		var addresses, services []nftables.SetElement
		var wide []lb.ServiceKey
		for _, one := range all {
			for _, a := range one.addresses {
				if a.Is6() == f.is6 {
					addresses = append(addresses, nftables.SetElement{Key: a.AsSlice()})
				}
			}
			for _, s := range one.services {
				switch {
				case s.Address.Is6() != f.is6:
				case s.Port == 0 || s.LastPort != 0 || s.Bits != 0:
					wide = append(wide, s)
				default:
					services = append(services, nftables.SetElement{Key: serviceElement(s)})
				}
			}
		}
		if addresses == nil {
			continue
		}
		keep := &nftables.Set{Table: t, Name: "virtual" + f.name, KeyType: f.address}
		pass := &nftables.Set{Table: t, Name: "services" + f.name, Concatenation: true,
			KeyType: nftables.MustConcatSetType(f.address, nftables.TypeInetProto, nftables.TypeInetService)}
		errs = append(errs, g.conn.AddSet(keep, addresses), g.conn.AddSet(pass, services))
		rule(f.only(), f.service(), []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: pass.Name, SetID: pass.ID}}, verdict(expr.VerdictAccept))
		for _, s := range wide {
			rule(f.only(), f.destination(), f.wide(s), verdict(expr.VerdictAccept))
		}
		for _, kind := range f.needed {
			rule(f.only(), f.message(kind), verdict(expr.VerdictAccept))
		}
		rule(f.only(), f.destination(), []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: keep.Name, SetID: keep.ID}}, verdict(expr.VerdictDrop))
	}
	return errors.Join(append(errs, g.flush())...)
}

func (g *guard) flush() error {
	if err := g.conn.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", g.table, err)
	}
	return nil
}

// remove deletes the table of a state_dir.
func removeGuard(stateDir string) error {
	c, err := nftables.New()
	if err == nil {
		c.DelTable(&nftables.Table{Name: guardTable(stateDir), Family: nftables.TableFamilyINet})
		err = c.Flush()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove nftables table %s: %w", guardTable(stateDir), err)
	}
	return nil
}

// family is how the rules of one IP version look.
type family struct {
	is6       bool
	name      string
	nfproto   byte
	address   nftables.SetDatatype
	offset    uint32 // of the destination address
	length    uint32
	protocol  byte   // ICMP of this version
	needed    []byte // its messages that come through: errors about connections of services, and neighbour discovery
	registers [2]uint32
}

// "RFC 9568, 6.1: IPv6 Neighbor Solicitations and Neighbor Advertisements MUST NOT be dropped when Accept_Mode is
// False."
var (
	rules4 = family{name: "4", nfproto: unix.NFPROTO_IPV4, address: nftables.TypeIPAddr, offset: 16, length: 4,
		protocol: unix.IPPROTO_ICMP, needed: []byte{3, 11, 12}, registers: [2]uint32{9, 10}}
	rules6 = family{is6: true, name: "6", nfproto: unix.NFPROTO_IPV6, address: nftables.TypeIP6Addr, offset: 24, length: 16,
		protocol: unix.IPPROTO_ICMPV6, needed: []byte{1, 2, 3, 4, 135, 136}, registers: [2]uint32{12, 13}}
)

func (f family) only() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.nfproto}}}
}

// destination loads the destination address into register 1.
func (f family) destination() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.length}}
}

// service loads destination address, protocol and port into register 1 and those behind it.
func (f family) service() []expr.Any {
	return append(f.destination(),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: f.registers[0]},
		&expr.Payload{DestRegister: f.registers[1], Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
}

// wide matches a service of many addresses or ports, with the destination address in register 1.
func (f family) wide(s lb.ServiceKey) []expr.Any {
	prefix := s.Prefix()
	mask := make([]byte, f.length)
	for bit := range prefix.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	first, last := s.Ports()
	port := func(op expr.CmpOp, n uint16) *expr.Cmp {
		return &expr.Cmp{Op: op, Register: 1, Data: binary.BigEndian.AppendUint16(nil, n)}
	}
	return []expr.Any{
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: f.length, Mask: mask, Xor: make([]byte, f.length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: prefix.Addr().AsSlice()},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(s.Protocol)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		port(expr.CmpOpGte, first), port(expr.CmpOpLte, last),
	}
}

// message matches one kind of ICMP message.
func (f family) message(kind byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{kind}}}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// serviceElement is a service as service loads it: each part fills whole registers of 4 bytes.
func serviceElement(s lb.ServiceKey) []byte {
	key := append(s.Address.AsSlice(), byte(s.Protocol), 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(key, s.Port), 0, 0)
}
