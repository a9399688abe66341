package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// IPVSRules lists the services and real servers of the node's IPVS, whoever has put them there, in the words of
// `ipvsadm --save --numeric` and sorted: first the services, then the real servers.
func (n *Node) IPVSRules() ([]string, error) {
	cmd := exec.Command("ipvsadm", "--save", "--numeric")
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	err := n.t.do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("list IPVS of %s: %w: %s", n.Name, err, errors.Bytes())
	}
	var rules []string
	for line := range strings.Lines(out.String()) {
		rules = append(rules, strings.TrimSpace(line))
	}
	slices.Sort(rules)
	return rules, nil
}

// ListIPVS is what the kernel itself lists of the node's IPVS, without the counts of connections. It costs less than IPVSRules.
func (n *Node) ListIPVS() (string, error) {
	var table []byte
	err := n.t.do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/ip_vs")
		return err
	})
	if err != nil {
		return "", fmt.Errorf("look at IPVS of %s: %w", n.Name, err)
	}
	return connections.ReplaceAllString(string(table), ""), nil
}

// connections are active and inactive ones of a real server.
var connections = regexp.MustCompile(`(?m) +[0-9]+ +[0-9]+ *$`)

// ClearIPVS removes all services of the node's IPVS.
func (n *Node) ClearIPVS() error { return n.Run("ipvsadm", "--clear") }
