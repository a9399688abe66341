package director

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/xdirector/xdirector/pkg/config"
	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/status"
)

// keyOf is the key in the file for a field of the configuration where it isn't the field's name in lower case: with a dot a
// key of a mapping, with a leading slash the fields of a mapping without a key of its own. Fields with an empty one are compared
// apart. A test knows all fields.
func keyOf(owner reflect.Type, field string) string {
	switch owner.Name() + "." + field {
	case "Instance.Password":
		return "authentication.password"
	case "GARP.LowerRepeat":
		return "lower_priority_repeat"
	case "GARP.LowerDelay":
		return "lower_priority_delay"
	case "Service.Persistence":
		return "persistence.timeout"
	case "Service.PersistenceBits":
		return "persistence.prefix"
	case "Service.Group":
		return "persistence.group"
	case "Service.Limits":
		return "/"
	case "Timeouts.Opening":
		return "syn"
	case "Limits.SourceBits":
		return "limits.prefix"
	case "Limits.Packets":
		return "limits.packets"
	case "Limits.New":
		return "limits.new_connections"
	case "VirtualAddress.Prefix":
		return "address"
	case "Check.Kind":
		return "type"
	case "Service.Address", "Service.Bits", "Service.Port", "Service.LastPort", "Service.FirewallMark", "Service.Protocol", "Service.RefuseUnknown",
		"Service.Check", "Service.RealServers", "RealServer.Check", "Dataplane.VRRPFastPathWritten",
		"Config.Instances", "Config.Scripts", "Config.SyncGroups", "Config.Services", "Config.Warnings":
		return ""
	}
	return snake(field)
}

// snake writes VirtualRouterID as virtual_router_id.
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		begins := i > 0 && unicode.IsUpper(r) && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
		if begins {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// differences lists the keys by which two values of one struct differ.
func differences(old, now any) []status.KeyChange {
	var list []status.KeyChange
	compareFields(reflect.ValueOf(old), reflect.ValueOf(now), "", &list)
	return list
}

// pointed is what a pointer to a struct points to, or one that is zero.
func pointed(v reflect.Value) reflect.Value {
	switch {
	case v.Kind() != reflect.Pointer || v.Type().Elem().Kind() != reflect.Struct:
		return v
	case v.IsNil():
		return reflect.Zero(v.Type().Elem())
	}
	return v.Elem()
}

func compareFields(old, now reflect.Value, prefix string, list *[]status.KeyChange) {
	for i := range old.NumField() {
		o, n := pointed(old.Field(i)), pointed(now.Field(i))
		if o.Kind() != reflect.Pointer && o.Comparable() && n.Comparable() && o.Equal(n) {
			continue
		}
		key := keyOf(old.Type(), old.Type().Field(i).Name)
		switch {
		case key == "" || reflect.DeepEqual(o.Interface(), n.Interface()):
		case o.Kind() == reflect.Struct && !isScalar(o):
			inner := prefix + key + "."
			if key == "/" {
				inner = prefix
			}
			compareFields(o, n, inner, list)
		default:
			was, is := written(key, o), written(key, n)
			if o.Kind() == reflect.Slice && o.Len()+n.Len() > 2*longList {
				was, is = brief(o, n)
			}
			*list = append(*list, status.KeyChange{Key: prefix + key, Old: was, New: is})
		}
	}
}

// isScalar says that a value of a struct's type is one word in the file.
func isScalar(v reflect.Value) bool {
	switch v.Interface().(type) {
	case netip.Addr, netip.Prefix:
		return true
	}
	return false
}

const none = "none"

// written is a value as YAML has it. A secret is never shown.
func written(key string, v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	case netip.Addr:
		if !x.IsValid() {
			return none
		}
		return x.String()
	case netip.Prefix:
		if !x.IsValid() {
			return none
		}
		if x.IsSingleIP() {
			return x.Addr().String()
		}
		return x.String()
	case slog.Level:
		return strings.ToLower(x.String())
	case lb.Forwarding:
		if x == lb.Direct {
			return "direct"
		}
	}
	switch v.Kind() {
	case reflect.String:
		switch {
		case v.String() == "":
			return none
		case isSecret(key):
			return "*** (not shown)"
		}
		return v.String()
	case reflect.Slice:
		if v.Len() == 0 {
			return none
		}
		var words []string
		for i := range v.Len() {
			words = append(words, written(key, v.Index(i)))
		}
		return "[" + strings.Join(words, ", ") + "]"
	case reflect.Pointer:
		if v.IsNil() {
			return none
		}
		return written(key, v.Elem())
	case reflect.Struct:
		return mapping(v)
	}
	return fmt.Sprint(v.Interface())
}

// mapping is a struct as YAML has it: in one line, without what is not set, and the first value alone if there is no other.
func mapping(v reflect.Value) string {
	var words []string
	first := ""
	for i := range v.NumField() {
		if v.Type().Field(i).Anonymous {
			words = append(words, strings.Trim(mapping(v.Field(i)), "{}"))
			continue
		}
		key := keyOf(v.Type(), v.Type().Field(i).Name)
		text := written(key, v.Field(i))
		if i == 0 {
			first = text
		} else if v.Field(i).IsZero() {
			continue
		}
		words = append(words, key+": "+text)
	}
	if len(words) == 1 {
		return first
	}
	return "{" + strings.Join(words, ", ") + "}"
}

// isSecret says that a value must not be shown: the URL of a webhook may hold one.
func isSecret(key string) bool {
	return slices.Contains([]string{"password", "secret", "token", "url"}, key[strings.LastIndex(key, ".")+1:])
}

// longList is how many elements a list may have and be shown whole.
const longList = 6

// brief shows two long lists by what they don't share.
func brief(old, now reflect.Value) (was, is string) {
	count := map[string]int{}
	for i := range old.Len() {
		count[written("", old.Index(i))]++
	}
	shared, added := 0, []string{}
	for i := range now.Len() {
		text := written("", now.Index(i))
		if count[text] > 0 {
			count[text]--
			shared++
		} else {
			added = append(added, text)
		}
	}
	removed := []string{}
	for i := range old.Len() {
		if text := written("", old.Index(i)); count[text] > 0 {
			count[text]--
			removed = append(removed, text)
		}
	}
	same := fmt.Sprintf("%d the same", shared)
	if len(added)+len(removed) == 0 {
		return same, same + " in another order"
	}
	return "[" + strings.Join(append(removed, same), ", ") + "]", "[" + strings.Join(append(added, same), ", ") + "]"
}

// identity are the keys by which packets find a service.
func identity(s config.Service) []string {
	if s.FirewallMark != 0 {
		return []string{none, none, none, fmt.Sprint(s.FirewallMark)}
	}
	port := fmt.Sprint(s.Port)
	if s.LastPort != 0 {
		port = fmt.Sprintf("%d-%d", s.Port, s.LastPort)
	}
	address := s.Address.String()
	if s.Bits != 0 {
		address = s.Key().Prefix().String()
	}
	return []string{address, port, s.Protocol.String(), none}
}

// identityKeys are their names.
func identityKeys() []string { return []string{"address", "port", "protocol", "firewall_mark"} }
