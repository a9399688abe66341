package metrics

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// ownNames refuses, on a loopback address, requests for the name of another site. What is served there needs no password,
// and a page that an operator's browser shows could have its own name point to 127.0.0.1 and then read all of it (DNS
// rebinding). Addresses, localhost and names without a dot can't belong to another site. On an address that others reach
// too, anybody there can read it in any case, under whatever name the box has.
func ownNames(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if local != nil && local.IP.IsLoopback() && !isOwn(r.Host) {
			http.Error(w, "no such site here: ask for 127.0.0.1 or localhost", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// isOwn says whether the host of a request can't be the name of another site.
func isOwn(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	return !strings.Contains(strings.TrimSuffix(name, "."), ".")
}
