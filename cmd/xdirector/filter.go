package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/xdp"
)

// parseFilter reads the expression of capture --filter.
func parseFilter(text string, cfg *config.Config) (xdp.Filter, error) {
	var f xdp.Filter
	seen := map[string]bool{}
	words := strings.Fields(text)
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		if word == "and" && len(seen) > 0 && len(words) > 0 {
			continue
		}
		if seen[word] {
			return f, fmt.Errorf("%s is there twice", word)
		}
		seen[word] = true
		if protocol, err := lb.ParseProtocol(word); err == nil && protocol != lb.SCTP {
			if f.Protocol != 0 {
				return f, errors.New("no packet is both tcp and udp")
			}
			f.Protocol = protocol
			continue
		}
		known := []string{"host", "port", "service", "verdict", "reason"}
		set, ok := map[string]func(*xdp.Filter, string, *config.Config) error{
			"host": setHost, "port": setPort, "service": setService, "verdict": setVerdicts, "reason": setReasons,
		}[word]
		if !ok {
			return f, fmt.Errorf("%q is no word of it%s: there are %s, tcp and udp", word, config.DidYouMean(word, known), strings.Join(known, ", "))
		}
		if len(words) == 0 {
			return f, fmt.Errorf("nothing stands behind %s", word)
		}
		if err := set(&f, words[0], cfg); err != nil {
			return f, err
		}
		words = words[1:]
	}
	if len(f.Drops) > 0 && len(f.Verdicts) == 0 {
		f.Verdicts = []string{"drop"}
	}
	return f, nil
}

func setHost(f *xdp.Filter, text string, _ *config.Config) error {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("host %q: write an address or a network: 192.0.2.1, 192.0.2.0/24", text)
		}
		prefix = netip.PrefixFrom(address, address.BitLen())
	}
	f.Host = prefix.Masked()
	return nil
}

func setPort(f *xdp.Filter, text string, _ *config.Config) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("port %q: write a number from 1 to 65535", text)
	}
	f.Port = uint16(port)
	return nil
}

func setService(f *xdp.Filter, text string, cfg *config.Config) error {
	var names []string
	for _, s := range cfg.Services {
		if s.Name == text {
			if s.OnlyIPVS() != "" {
				return fmt.Errorf("service %s has no packets here: %s; tcpdump sees them", text, s.OnlyIPVS())
			}
			f.Service = s.Key()
			return nil
		}
		names = append(names, s.Name)
	}
	return fmt.Errorf("no service %q is configured here%s: there are %s", text, config.DidYouMean(text, names), strings.Join(names, ", "))
}

func setVerdicts(f *xdp.Filter, text string, _ *config.Config) error {
	for _, word := range strings.Split(text, ",") {
		found := false
		for _, name := range xdp.Verdicts() {
			passed := strings.HasPrefix(name, "pass_")
			if name == word || word == "passed" && passed || word == "sent" && !passed && name != "drop" {
				f.Verdicts, found = append(f.Verdicts, name), true
			}
		}
		if !found {
			all := append(xdp.Verdicts(), "sent", "passed")
			return fmt.Errorf("no verdict is called %q%s: there are %s", word, config.DidYouMean(word, all), strings.Join(all, ", "))
		}
	}
	return nil
}

func setReasons(f *xdp.Filter, text string, _ *config.Config) error {
	for _, word := range strings.Split(text, ",") {
		found := false
		for _, name := range xdp.Drops() {
			found = found || name == word
		}
		if !found {
			return fmt.Errorf("no reason of drops is called %q%s: there are %s", word, config.DidYouMean(word, xdp.Drops()), strings.Join(xdp.Drops(), ", "))
		}
		f.Drops = append(f.Drops, word)
	}
	return nil
}
