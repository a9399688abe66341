package config

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// text reads a string; allowed says in messages what may stand there.
func (d *decoder) text(v value, allowed string) (string, bool) {
	if v.shape != nil {
		v.shape.text(allowed)
		return "", false
	}
	switch {
	case isNull(v.node):
		d.wrong(v, "empty; allowed: %s", allowed)
	case v.node.Kind != yaml.ScalarNode:
		d.wrong(v, "%s is not a text; allowed: %s", describe(v.node), allowed)
	case v.node.ShortTag() != "!!str":
		shown := describe(v.node)
		d.wrong(v, "%s is %s in YAML, not a text; write it in quotes, %s; allowed: %s", shown, noun(v.node), quote(v.node.Value), allowed)
	case v.node.Value == "":
		d.wrong(v, `"" is empty; allowed: %s`, allowed)
	default:
		return v.node.Value, true
	}
	return "", false
}

// noun names what YAML takes a node for.
func noun(node *yaml.Node) string {
	switch node.ShortTag() {
	case "!!seq":
		return "a list"
	case "!!map":
		return "a mapping"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a boolean"
	case "!!timestamp":
		return "a date"
	}
	return "a tagged value"
}

// word reads a string whose values can never be mistaken for a number, so that a hint at quotes would mislead.
func (d *decoder) word(v value, allowed string) (string, bool) {
	if v.node.Kind == yaml.ScalarNode && v.node.ShortTag() != "!!str" && !isNull(v.node) {
		d.wrong(v, "%s is %s; allowed: %s", describe(v.node), noun(v.node), allowed)
		return "", false
	}
	return d.text(v, allowed)
}

// integer makes a reader of YAML integers from low to high.
func integer[T uint8 | uint16 | uint32 | int](d *decoder, low, high T) func(value) (T, bool) {
	return func(v value) (T, bool) {
		n, ok := d.integer(v, int64(low), int64(high))
		return T(n), ok
	}
}

var (
	digits      = regexp.MustCompile(`^[+-]?[0-9]+$`)
	leadingZero = regexp.MustCompile(`^[+-]?0[0-9]+$`)
)

func (d *decoder) integer(v value, low, high int64) (int64, bool) {
	if v.shape != nil {
		v.shape.integer(low, high)
		return 0, false
	}
	if isNull(v.node) {
		d.wrong(v, "empty; allowed: %d to %d", low, high)
		return 0, false
	}
	scalar := v.node.Kind == yaml.ScalarNode
	tag, s := v.node.ShortTag(), strings.ReplaceAll(v.node.Value, "_", "")
	n, err := strconv.ParseInt(s, 0, 64)
	switch {
	case scalar && tag != "!!str" && leadingZero.MatchString(s):
		d.wrong(v, "%s begins with 0, which makes it octal for YAML; write it without; allowed: %d to %d", describe(v.node), low, high)
	case scalar && tag == "!!str" && digits.MatchString(s):
		d.wrong(v, "%s is a text in YAML, not an integer; write it without quotes; allowed: %d to %d", describe(v.node), low, high)
	case tag == "!!int" && err == nil && low <= n && n <= high:
		return n, true
	// Numbers of more than 64 bits are floats for YAML.
	case tag == "!!int" && err == nil, scalar && err != nil && digits.MatchString(s):
		d.wrong(v, "%s is out of range; allowed: %d to %d", describe(v.node), low, high)
	default:
		d.wrong(v, "%s is not an integer; allowed: %d to %d", describe(v.node), low, high)
	}
	return 0, false
}

// boolean reads true or false.
func (d *decoder) boolean(v value) (bool, bool) {
	if v.shape != nil {
		v.shape.kind = kindBoolean
		return false, false
	}
	if isNull(v.node) {
		d.wrong(v, "empty; allowed: true, false")
		return false, false
	}
	if v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!bool" {
		switch v.node.Value {
		case "true", "True", "TRUE":
			return true, true
		case "false", "False", "FALSE":
			return false, true
		}
	}
	hint := ""
	switch strings.ToLower(v.node.Value) {
	case "yes", "on", "y":
		hint = "; write true"
	case "no", "off", "n":
		hint = "; write false"
	}
	d.wrong(v, "%s is not a boolean%s; allowed: true, false", describe(v.node), hint)
	return false, false
}

// span is a range of durations, both ends included.
type span struct {
	low, high, step time.Duration // step 0: any
	allowed         string        // the same in words
}

// duration makes a reader of Go durations within the span.
func (d *decoder) duration(s span) func(value) (time.Duration, bool) {
	return func(v value) (time.Duration, bool) {
		t, ok := d.anyDuration(v, s.allowed)
		if ok && !s.holds(t) {
			d.wrong(v, "%s is out of range; allowed: %s", v.node.Value, s.allowed)
			return 0, false
		}
		return t, ok
	}
}

func (s span) holds(t time.Duration) bool {
	return t >= s.low && t <= s.high && (s.step == 0 || t%s.step == 0)
}

func (d *decoder) anyDuration(v value, allowed string) (time.Duration, bool) {
	if v.shape != nil {
		v.shape.duration(allowed)
		return 0, false
	}
	if v.node.Kind != yaml.ScalarNode || isNull(v.node) {
		return 0, d.failed(d.word(v, "a duration, "+allowed))
	}
	if digits.MatchString(v.node.Value) {
		d.wrong(v, "%s has no unit; write %ss for seconds or %sms for milliseconds; allowed: %s", describe(v.node), v.node.Value, v.node.Value, allowed)
		return 0, false
	}
	t, err := time.ParseDuration(v.node.Value)
	if err != nil || v.node.ShortTag() != "!!str" {
		d.wrong(v, "%s is not a duration; write it like 1s, 500ms or 1m30s; allowed: %s", describe(v.node), allowed)
		return 0, false
	}
	return t, true
}

// failed drops the value of a reader that was called for its message.
func (d *decoder) failed(string, bool) bool { return false }

// choice makes a reader of one word out of a few. The words in later belong to the product, not to this version.
func (d *decoder) choice(allowed []string, later ...string) func(value) (string, bool) {
	list := strings.Join(allowed, ", ")
	return func(v value) (string, bool) {
		s, ok := d.word(v, list)
		if v.shape != nil {
			v.shape.words = allowed
		}
		switch {
		case !ok:
			return "", false
		case slices.Contains(allowed, s):
			return s, true
		case slices.Contains(later, s):
			d.wrong(v, "%s is not supported by this version; allowed: %s", quote(s), list)
		default:
			d.wrong(v, "%s is unknown%s; allowed: %s", quote(s), didYouMean(s, allowed), list)
		}
		return "", false
	}
}

var sane = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$`)

// name reads a name that can stand in a metric label, a file name and a command line.
func (d *decoder) name(v value) (string, bool) {
	const allowed = "1 to 63 letters, digits, dots, underscores and hyphens, with a letter, a digit or an underscore first"
	s, ok := d.text(v, allowed)
	v.matches(sane)
	if ok && !sane.MatchString(s) {
		d.wrong(v, "%s can't be a name; allowed: %s", quote(s), allowed)
		return "", false
	}
	return s, ok
}

var interfaceName = regexp.MustCompile(`^[^/:\s\x00-\x20\x7f]{1,15}$`)

// networkInterface reads the name of a network interface; it need not exist.
func (d *decoder) networkInterface(v value) (string, bool) {
	const allowed = "the name of a network interface, at most 15 bytes without slash, colon and white space"
	s, ok := d.text(v, allowed)
	v.matches(interfaceName)
	if ok && (len(s) > 15 || s == "." || s == ".." || !interfaceName.MatchString(s)) {
		d.wrong(v, "%s can't be a network interface; allowed: %s", quote(s), allowed)
		return "", false
	}
	return s, ok
}

// boxAddress reads the own address of some box, of either family.
func (d *decoder) boxAddress(v value) (netip.Addr, bool) {
	const allowed = "a unicast address like 192.168.5.2 or 2001:db8::2"
	a, ok := d.bareAddress(v, allowed)
	return a, ok && d.usable(v, a, allowed)
}

// bareAddress reads an address without a prefix length.
func (d *decoder) bareAddress(v value, allowed string) (netip.Addr, bool) {
	s, ok := d.word(v, allowed)
	if !ok {
		return netip.Addr{}, false
	}
	if strings.Contains(s, "/") {
		d.wrong(v, "%s has a prefix length; write the address alone; allowed: %s", quote(s), allowed)
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		d.wrong(v, "%s is not an IP address; allowed: %s, names are not looked up", quote(s), allowed)
		return netip.Addr{}, false
	}
	d.families[v.path] = familyOf(a)
	return a, true
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// prefix reads a unicast address with or without a prefix length.
func (d *decoder) prefix(v value) (netip.Prefix, bool) {
	const allowed = "a unicast address with or without a prefix length, like 192.168.5.100/32 or 2001:db8::100/64"
	s, ok := d.word(v, allowed)
	if !ok {
		return netip.Prefix{}, false
	}
	address, length, _ := strings.Cut(s, "/")
	a, err := netip.ParseAddr(address)
	if err != nil {
		d.wrong(v, "%s is not an IP address; allowed: %s", quote(s), allowed)
		return netip.Prefix{}, false
	}
	d.families[v.path] = familyOf(a)
	if !d.usable(v, a, allowed) {
		return netip.Prefix{}, false
	}
	if address == s {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Bits() == 0 {
		d.wrong(v, "%s has a wrong prefix length, %s; allowed: 1 to %d", quote(s), quote(length), a.BitLen())
		return netip.Prefix{}, false
	}
	return p, true
}

// network reads the destination of a route.
func (d *decoder) network(v value) (netip.Prefix, bool) {
	const allowed = "a network like 10.0.0.0/8, 0.0.0.0/0 or 2001:db8::/32"
	s, ok := d.word(v, allowed)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	if a, bare := netip.ParseAddr(s); bare == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil || p.Addr().Zone() != "" || p.Addr().Is4In6():
		d.wrong(v, "%s is not a network; allowed: %s", quote(s), allowed)
	case p.Masked() != p:
		d.wrong(v, "%s has bits behind its prefix length; write %s; allowed: %s", quote(s), p.Masked(), allowed)
	default:
		d.families[v.path] = familyOf(p.Addr())
		return p, true
	}
	return netip.Prefix{}, false
}

// usable reports an address that packets can't be sent to.
func (d *decoder) usable(v value, a netip.Addr, allowed string) bool {
	reason := ""
	switch {
	case a.Zone() != "":
		reason = "an address with a zone; write it without, the interface is known"
	case a.Is4In6():
		reason = "an IPv4 address in the form of IPv6; write " + a.Unmap().String()
	case a.IsUnspecified():
		reason = "the unspecified address"
	case a.IsLoopback():
		reason = "a loopback address"
	case a.IsMulticast():
		reason = "a multicast address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		reason = "the broadcast address"
	default:
		return true
	}
	d.wrong(v, "%s is %s; allowed: %s", quote(v.node.Value), reason, allowed)
	return false
}

var absolute = regexp.MustCompile(`^/`)

// path makes a reader of an absolute path of at most limit bytes.
func (d *decoder) path(limit int) func(value) (string, bool) {
	allowed := "an absolute path of at most " + strconv.Itoa(limit) + " bytes"
	return func(v value) (string, bool) {
		s, ok := d.text(v, allowed)
		v.matches(absolute)
		switch {
		case !ok:
			return "", false
		case !filepath.IsAbs(s):
			d.wrong(v, "%s is not absolute; allowed: %s", quote(s), allowed)
		case len(s) > limit:
			d.wrong(v, "%s is %d bytes long; allowed: %s", quote(s), len(s), allowed)
		case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
			d.wrong(v, "%s has control characters; allowed: %s", quote(s), allowed)
		case filepath.Clean(s) == "/":
			d.wrong(v, "%s is the root folder; allowed: %s below it", quote(s), allowed)
		default:
			return filepath.Clean(s), true
		}
		return "", false
	}
}
