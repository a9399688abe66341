package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	if list := processes("dhcpcd", "connmand", "ifplugd", "wickedd"); len(list) > 0 {
		b.found(list[0].name+" runs here", "it removes addresses that it did not add, at the next lease or when the link was down; the virtual ones are put back, and clients notice", list[0].end())
	}
	return nil
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
		if k, err := keys(f); err == nil && k["KeepConfiguration"] != "" && k["KeepConfiguration"] != "no" {
			return nil
		}
	}
	b.found("systemd-networkd manages "+l.Name, "when it is started again, or configures the interface anew, it removes addresses that it did not add; the virtual ones are put back, and clients notice",
		fmt.Sprintf(`mkdir -p %[1]s && printf '[Network]\nKeepConfiguration=static\n' > %[1]s/xdirector.conf && systemctl restart systemd-networkd`, quote(folder)))
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
