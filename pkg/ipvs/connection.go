package ipvs

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
)

// connectionTable is the kernel's list of IPVS connections in the caller's network namespace.
const connectionTable = "/proc/thread-self/net/ip_vs_conn"

// Connection is what the kernel's IPVS remembers of a client.
type Connection struct {
	RealServer  netip.AddrPort
	State       string        // the kernel's name, for example ESTABLISHED
	Left        time.Duration // until it is forgotten
	Persistence bool          // it is no connection: the client is bound to the real server
}

// FindConnection looks for a connection in the kernel's table, else for what binds the client; false: there is neither. A large
// table takes a second.
func FindConnection(protocol lb.Protocol, from, to netip.AddrPort) (Connection, bool, error) {
	table, err := os.Open(connectionTable)
	if errors.Is(err, os.ErrNotExist) {
		return Connection{}, false, nil // no ip_vs
	}
	if err != nil {
		return Connection{}, false, fmt.Errorf("read ipvs connections: %w", err)
	}
	defer table.Close()
	return findConnection(table, protocol, from, to)
}

func findConnection(table io.Reader, protocol lb.Protocol, from, to netip.AddrPort) (found Connection, ok bool, err error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// Pro FromIP FPrt ToIP TPrt DestIP DPrt State Expires
		f := strings.Fields(lines.Text())
		if len(f) < 9 || !strings.EqualFold(f[0], protocol.String()) {
			continue
		}
		client, virtual := endpoint(f[1], f[2]), endpoint(f[3], f[4])
		persistence := client.Port() == 0
		switch {
		case client.Addr() != from.Addr() || virtual.Addr() != to.Addr():
			continue
		case !persistence && (client.Port() != from.Port() || virtual.Port() != to.Port()):
			continue
		case persistence && (ok || virtual.Port() != 0 && virtual.Port() != to.Port()):
			continue
		}
		seconds, _ := strconv.Atoi(f[8])
		found, ok = Connection{endpoint(f[5], f[6]), f[7], time.Duration(seconds) * time.Second, persistence}, true
		if !persistence {
			break
		}
	}
	if err := lines.Err(); err != nil {
		return found, ok, fmt.Errorf("read ipvs connections: %w", err)
	}
	return found, ok, nil
}

// endpoint reads an address as 8 hexadecimal digits or in IPv6's long form, and a port as 4 digits; invalid if it is neither.
func endpoint(address, port string) netip.AddrPort {
	a, err := netip.ParseAddr(address)
	if b, wrong := hex.DecodeString(address); wrong == nil && len(b) == 4 {
		a, err = netip.AddrFrom4([4]byte(b)), nil
	}
	p, wrong := hex.DecodeString(port)
	if err != nil || wrong != nil || len(p) != 2 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(p))
}
