package status

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// line is the service's own line, with the reason for its plane if the others are on another one.
func (v Service) line(others Plane) string {
	what := fmt.Sprintf("%-4s %s", strings.ToUpper(v.Protocol), v.Endpoint())
	if v.FirewallMark != 0 {
		what = fmt.Sprintf("%-4s %d", "FWM", v.FirewallMark)
	}
	line := what + " " + v.Scheduler
	if v.Persistence > 0 {
		line += fmt.Sprintf(" persistent %d", v.Persistence/time.Second)
	}
	if v.Quorum.Needed > 1 {
		line += fmt.Sprintf(" quorum %d of %d", v.Quorum.Weight, v.Quorum.Needed)
	}
	plane := v.Plane.Name
	switch {
	case plane == "":
		plane = "no plane"
	case plane != others.Name:
		plane += ": " + v.Plane.Reason
	}
	line += fmt.Sprintf(" (%s, %s)", plain(v.Name), plain(plane))
	if refused := v.RefusedText(); refused != "" {
		line += " refused so far: " + refused
	}
	return line
}

// RefusedText is how many packets the limits have refused, by reason: "denied 12, full 3".
func (v Service) RefusedText() string {
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(v.Refused)) {
		if n := v.Refused[reason]; n > 0 {
			list = append(list, fmt.Sprintf("%s %d", reason, n))
		}
	}
	return strings.Join(list, ", ")
}

// Endpoint is where the packets of the service go: 192.168.5.100:80, [2001:db8::1]:443, 192.0.2.0/28:8000-8099, firewall mark 7.
func (v Service) Endpoint() string {
	if v.FirewallMark != 0 {
		return fmt.Sprintf("firewall mark %d", v.FirewallMark)
	}
	port := strconv.Itoa(int(v.Port))
	if v.LastPort != 0 {
		port += "-" + strconv.Itoa(int(v.LastPort))
	}
	if address, length, network := strings.Cut(v.Address, "/"); network {
		if strings.Contains(address, ":") {
			address = "[" + address + "]"
		}
		return address + "/" + length + ":" + port
	}
	return net.JoinHostPort(v.Address, port)
}

// forward is the way of forwarding as ipvsadm calls it.
func (v Service) forward() string {
	switch v.Forwarding {
	case "nat":
		return "Masq"
	case "tunnel":
		return "Tunnel"
	}
	return "Route"
}

// besides are the differences of planes that only some services are on, each once.
func (s *Status) besides() []string {
	var all []string
	for _, v := range s.Services {
		if v.Plane.Name == s.Plane.Name {
			continue
		}
		for _, difference := range v.Plane.Differences {
			if text := v.Plane.Name + ": " + difference; !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
	}
	return all
}
