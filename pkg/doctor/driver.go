package doctor

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xdirector/xdirector/pkg/config"
)

// programName is how the kernel shows our XDP program.
const programName = "xdirector"

// nativeDrivers have XDP, as the sources of Linux 6.1 say; a newer kernel tells it itself.
func nativeDrivers() []string {
	return []string{"veth", "tun", "virtio_net", "bonding", "bnxt_en", "ena", "gve", "hv_netvsc", "mana", "i40e", "iavf", "ice", "igb", "igc", "ixgbe", "ixgbevf",
		"mlx4_en", "mlx5_core", "nfp", "qede", "sfc", "mvneta", "mvpp2", "stmmac", "st_gmac", "fsl_enetc", "fsl_dpaa2_eth", "fsl_dpaa", "thunder-nicvf", "octeontx2-nicpf",
		"netsec", "cpsw", "am65-cpsw", "xen-netfront", "vif", "lan966x", "tsnep", "atlantic"}
}

// xdpMode: which XDP the drivers have, and whether somebody else's program is in the place of ours.
func xdpMode(b *box) error {
	used, err := b.used()
	if err != nil {
		return err
	}
	for _, l := range used {
		bottom := b.bottom(l)
		driver := driverOf(bottom.Name)
		native, by := b.native(bottom, driver)
		if native {
			b.fact("%s: driver %s has native XDP (%s)", bottom.Name, driver, by)
		} else {
			b.fact("%s: driver %s has no native XDP (%s): generic XDP", bottom.Name, driver, by)
			if b.Config != nil && b.Config.Dataplane.Mode == config.ModeXDPNative && slices.Contains(b.Config.Dataplane.Interfaces, l.Name) {
				b.found("the driver of "+bottom.Name+" ("+driver+") has no native XDP", "dataplane.mode asks for xdp-native and nothing else: no service is forwarded",
					b.replaceWord(config.ModeXDPNative, config.ModeAuto))
			}
		}
		b.foreignProgram(bottom)
	}
	return nil
}

// bottom goes down from a VLAN or macvlan to the interface whose driver has its frames.
func (b *box) bottom(l link) link {
	all, err := b.links()
	for range 8 {
		if err != nil || l.Info.Kind != "vlan" && l.Info.Kind != "macvlan" {
			return l
		}
		below, here := linkNamed(all, l.Below)
		if !here {
			return l
		}
		l = below
	}
	return l
}

// cards are the interfaces whose drivers receive an interface's frames: of a bond its members.
func (b *box) cards(l link) []link {
	l = b.bottom(l)
	if l.Info.Kind != "bond" {
		return []link{l}
	}
	all, err := b.links()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(all), func(member link) bool { return member.Master != l.Name })
}

// native says whether a driver has native XDP, and who says so.
func (b *box) native(l link, driver string) (native bool, by string) {
	if features, err := xdpFeatures(l.Index); err == nil {
		return features&featureBasic != 0, "says the kernel"
	}
	return slices.Contains(nativeDrivers(), driver), "by its name; this kernel doesn't tell"
}

// foreignProgram finds an XDP program that is not a director's.
func (b *box) foreignProgram(l link) {
	if l.XDP == nil {
		return
	}
	type program struct {
		mode int
		id   id
	}
	list := []program{{l.XDP.Mode, l.XDP.Program}}
	for _, a := range l.XDP.Attached {
		list = append(list, program{a.Mode, a.Program})
	}
	for _, p := range list {
		// A director's program has its name; which of several directors it belongs to is run's question.
		if p.id.ID == 0 || p.id.Name == programName {
			continue
		}
		how := map[int]string{1: "xdp", 2: "xdpgeneric", 3: "xdpoffload"}[p.mode]
		if how == "" {
			how = "xdp"
		}
		b.found(fmt.Sprintf("somebody else's XDP program %q (id %d) is on %s", p.id.Name, p.id.ID, l.Name),
			"an interface has one XDP program: a director's can't be attached", fmt.Sprintf("ip link set dev %s %s off", quote(l.Name), how))
	}
}

// offloads: what a driver does with frames before the plane sees them.
func offloads(b *box) error {
	used, err := b.used()
	if err != nil {
		return err
	}
	tagged := map[string]bool{} // interfaces of whose VLANs one is in use
	for _, l := range used {
		if l.Info.Kind == "vlan" {
			tagged[b.bottom(l).Name] = true
		}
	}
	for _, l := range used {
		for _, card := range b.cards(l) {
			b.offloadsOf(card, tagged[b.bottom(l).Name])
		}
	}
	return nil
}

// offloadsOf looks at one card; tagged: it carries VLANs that are in use.
func (b *box) offloadsOf(card link, tagged bool) {
	name := quote(card.Name)
	flags := ask(card.Name, unix.ETHTOOL_GFLAGS)
	if flags&flagLRO != 0 {
		b.found("LRO is on on "+card.Name, "packets are merged in a way that can't be undone: those that are forwarded are lost, and drivers refuse native XDP",
			"ethtool -K "+name+" lro off")
	}
	if tagged && len(b.onXDP()) > 0 && b.Live == nil && flags&flagReceiveVLAN != 0 {
		b.found("the driver of "+card.Name+" takes VLAN tags off", "XDP can't tell the frames of its VLANs apart; a director switches that off when it starts, and a few cards lose the link for a moment then",
			"ethtool -K "+name+" rxvlan off")
	}
	segments := ask(card.Name, unix.ETHTOOL_GTSO) != 0 && ask(card.Name, unix.ETHTOOL_GTXCSUM) != 0
	if b.plane() == config.ModeXDPGeneric && !segments && ask(card.Name, unix.ETHTOOL_GGRO) != 0 {
		b.found("GRO is on on "+card.Name+", whose driver doesn't cut merged packets up",
			"generic XDP would send what nobody can receive; a director switches it off when it starts", "ethtool -K "+name+" gro off")
	}
}

// enoughPlaces is a receive ring that holds a burst of 100 microseconds at 10 million packets a second.
const enoughPlaces = 1024

// queues: all processors take part, and bursts find room.
func queues(b *box) error {
	used, err := b.used()
	if err != nil {
		return err
	}
	for _, l := range used {
		for _, card := range b.cards(l) {
			b.queuesOf(card.Name)
		}
	}
	return nil
}

func (b *box) queuesOf(name string) {
	rings := ringSizes{command: unix.ETHTOOL_GRINGPARAM}
	if ioctl(name, unsafe.Pointer(&rings)) == nil && rings.rx < enoughPlaces && rings.rx < rings.maxRX {
		more := min(rings.maxRX, 4*enoughPlaces)
		b.found(fmt.Sprintf("the receive ring of %s has %d places of %d", name, rings.rx, rings.maxRX),
			"a burst of small packets overflows it, and they are lost before anybody counts them", fmt.Sprintf("ethtool -G %s rx %d", quote(name), more))
	}
	c := channels{command: unix.ETHTOOL_GCHANNELS}
	if ioctl(name, unsafe.Pointer(&c)) != nil {
		return // one queue, which nobody can change
	}
	cpus := uint32(runtime.NumCPU())
	have, most, which := c.rx+c.combined, c.maxCombined, "combined"
	if most == 0 {
		most, which = c.maxRX, "rx"
	}
	// A veth has as many as it was made with: fewer to receive than to send are a mistake, equal ones a wish.
	wished := c.rx == c.tx && driverOf(name) == "veth"
	if want := min(cpus, most); have < want && !wished {
		b.found(fmt.Sprintf("%s spreads packets over %d of %d possible receive queues (RSS), with %d processors", name, have, most, cpus),
			"so few processors do all the work, and the box drops packets while the others are idle", fmt.Sprintf("ethtool -L %s %s %d", quote(name), which, want))
	}
}
