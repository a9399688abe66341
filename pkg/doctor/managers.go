package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// managers: what configures the network leaves addresses alone that it didn't add. D-Bus is not asked: both programs
// write down what they manage.
func managers(b *box) error {
	used, err := b.used()
	if err != nil {
		return err
	}
	for _, l := range used {
		if err := b.networkd(l); err != nil {
			return err
		}
		if err := b.networkManager(l); err != nil {
			return err
		}
	}
	if err := b.dhclient(used); err != nil {
		return err
	}
	return b.connman(used)
}

// dhclient: its script flushes an interface of IPv4 addresses when the lease is another one, or at an end. (dhcpcd removes what
// it has added, and nothing else.)
func (b *box) dhclient(used []link) error {
	for _, p := range processes("dhclient") {
		for _, l := range used {
			if !slices.Contains(p.arguments, l.Name) || slices.Contains(p.arguments, "-6") {
				continue
			}
			keep, addresses, gateway, err := b.keep(l)
			if err != nil {
				return err
			}
			command, why := "", ". The address that the command keeps must be configured elsewhere before the next boot"
			files, _ := filepath.Glob("/etc/network/interfaces.d/*") // the pattern is good
			for _, file := range append([]string{"/etc/network/interfaces"}, files...) {
				text, _ := os.ReadFile(file) // missing: nothing is configured there
				if len(addresses) == 0 || !regexp.MustCompile(`(?m)^iface `+regexp.QuoteMeta(l.Name)+` inet dhcp`).Match(text) {
					continue
				}
				lines := `\n    address ` + addresses[0]
				if gateway != "" {
					lines += `\n    gateway ` + gateway
				}
				command = fmt.Sprintf("sed -i %s %s; ", quote(fmt.Sprintf(`s|^\(iface %s inet\) dhcp|\1 static%s|`, l.Name, lines)), quote(file))
				why = ""
			}
			b.found("dhclient has the address of "+l.Name+" leased", "at the end of a lease, or with another one, it removes all addresses of the interface; the virtual ones are put back, and clients notice. A director's own address should be static"+why,
				fmt.Sprintf("%skill %d; sleep 1%s", command, p.pid, keep))
		}
	}
	return nil
}

// connman: ConnMan removes foreign addresses when it is started, and takes interfaces down when it ends.
func (b *box) connman(used []link) error {
	list := processes("connmand")
	if len(list) == 0 {
		return nil
	}
	command := list[0].end() + "; sleep 1"
	for _, l := range used {
		keep, _, _, err := b.keep(l)
		if err != nil {
			return err
		}
		command += keep
	}
	b.found("ConnMan manages the network of this box", "when it is started it removes addresses that it did not add; the virtual ones are put back, and clients notice. "+
		"The addresses that the command keeps must be configured elsewhere before the next boot", command)
	return nil
}

// keep is the rest of a command that ends what manages an interface: whoever is logged in through it still is. It returns the
// interface's own addresses and its router too; no router: empty.
func (b *box) keep(l link) (command string, addresses []string, gateway string, err error) {
	var routes []struct {
		Gateway string `json:"gateway"`
		Device  string `json:"dev"`
	}
	if err := b.runJSON(&routes, "ip", "-json", "route", "show", "default"); err != nil {
		return "", nil, "", err
	}
	name := quote(l.Name)
	command = "; ip link set dev " + name + " up"
	for _, a := range l.Addresses {
		if a.Scope == "global" && !slices.Contains(b.virtualAddresses(), a.Local) {
			addresses = append(addresses, prefixOf(a).String())
			command += fmt.Sprintf("; ip address replace %s dev %s valid_lft forever preferred_lft forever", prefixOf(a), name)
		}
	}
	for _, r := range routes {
		if r.Device == l.Name && r.Gateway != "" {
			gateway = r.Gateway
			command += fmt.Sprintf("; ip route replace default via %s dev %s", gateway, name)
		}
	}
	return command, addresses, gateway, nil
}

// keys reads NAME=VALUE lines.
func keys(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, is := strings.Cut(strings.TrimSpace(line), "="); is {
			all[name] = value
		}
	}
	return all, nil
}

// networkd: systemd-networkd removes what is foreign when it configures a link anew.
func (b *box) networkd(l link) error {
	state, err := keys(fmt.Sprintf("/run/systemd/netif/links/%d", l.Index))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state of systemd-networkd: %w", err)
	}
	file := state["NETWORK_FILE"]
	if file == "" || state["ADMIN_STATE"] == "unmanaged" || len(processes("systemd-network")) == 0 {
		return nil
	}
	folder := filepath.Join("/etc/systemd/network", filepath.Base(file)+".d")
	dropIns, _ := filepath.Glob(folder + "/*.conf") // the pattern is good
	for _, f := range append([]string{file}, dropIns...) {
		// A director's addresses have a lifetime, so they are none of those that it calls static.
		if k, err := keys(f); err == nil && slices.Contains([]string{"yes", "true", "on", "1", "dhcp"}, k["KeepConfiguration"]) {
			return nil
		}
	}
	b.found("systemd-networkd manages "+l.Name, "when it is started again, or configures the interface anew, it removes addresses that it did not add; the virtual ones are put back, and clients notice",
		fmt.Sprintf(`mkdir -p %[1]s && printf '[Network]\nKeepConfiguration=yes\n' > %[1]s/xdirector.conf && systemctl restart systemd-networkd`, quote(folder)))
	return nil
}

// networkManager: NetworkManager does so when a connection is activated again.
func (b *box) networkManager(l link) error {
	state, err := keys(fmt.Sprintf("/run/NetworkManager/devices/%d", l.Index))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state of NetworkManager: %w", err)
	}
	if state["managed"] == "true" && len(processes("NetworkManager")) > 0 {
		b.found("NetworkManager manages "+l.Name, "when a connection is activated again it removes addresses that it did not add; the virtual ones are put back, and clients notice. "+
			"The address of the interface itself must be configured elsewhere before the next boot",
			fmt.Sprintf(`printf '[keyfile]\nunmanaged-devices+=interface-name:%[1]s\n' > /etc/NetworkManager/conf.d/90-xdirector-%[1]s.conf && nmcli device set %[1]s managed no`, l.Name))
	}
	return nil
}
