package director

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// BenchmarkAThousandInstances is what a change of one instance costs the agent of a thousand, with ten addresses each.
func BenchmarkAThousandInstances(b *testing.B) {
	var file strings.Builder
	file.WriteString("vrrp:\n  instances:\n")
	d := &Director{servers: map[lb.ServerKey]*server{}, meter: newMeter()}
	for n := range 1000 {
		fmt.Fprintf(&file, "    - {name: VI_%d, interface: eth%d, virtual_router_id: %d, virtual_addresses: [", n, n/250, 1+n%250)
		for a := range 10 {
			fmt.Fprintf(&file, "10.%d.%d.%d, ", a, n/250, 1+n%250)
		}
		file.WriteString("]}\n")
		d.report.Instances = append(d.report.Instances, ha.InstanceReport{
			Name: fmt.Sprintf("VI_%d", n), State: vrrp.Backup, Source: netip.MustParseAddr("10.0.0.1"), Master: netip.MustParseAddr("10.0.0.2"),
			Transitions: map[vrrp.State]uint64{vrrp.Backup: 1}, Peers: []lb.Director{{Address: netip.MustParseAddr("10.0.0.2")}},
		})
	}
	var err error
	if d.cfg, err = config.Parse("f", []byte(file.String())); err != nil {
		b.Fatal(err)
	}
	for name, do := range map[string]func(){
		"picture":  func() { d.orders++; d.publish() },
		"idle":     d.publish,
		"wish":     func() { d.wish(d.cfg) },
		"election": func() { haConfig(d.cfg, nil) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				do()
			}
		})
	}
}
