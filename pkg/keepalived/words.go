package keepalived

import "strings"

const blanks = " \t\f\v\r\n"

// words takes a line apart as keepalived does for most keywords: at white space and double quotes, which are taken off.
func words(s string) []string {
	var list []string
	for {
		s = strings.TrimLeft(s, blanks)
		if s == "" {
			return list
		}
		if s[0] == '"' {
			end := strings.IndexByte(s[1:], '"')
			if end < 0 {
				return append(list, s[1:])
			}
			list, s = append(list, s[1:1+end]), s[2+end:]
			continue
		}
		end := strings.IndexAny(s, blanks+`"`)
		if end < 0 {
			end = len(s)
		}
		list, s = append(list, s[:end]), s[end:]
	}
}

// escaped takes a line apart as keepalived does for commands: with both kinds of quotes anywhere in a word, and escapes.
func escaped(s string) []string {
	var list []string
	for at := 0; ; {
		for at < len(s) && strings.IndexByte(blanks, s[at]) >= 0 {
			at++
		}
		if at == len(s) {
			return list
		}
		var word []byte
		quoted := byte(0)
		for at < len(s) && (quoted != 0 || strings.IndexByte(blanks, s[at]) < 0) {
			c := s[at]
			at++
			switch {
			case c == '\\' && at < len(s):
				var b byte
				b, at = escape(s, at)
				word = append(word, b)
			case c == quoted:
				quoted = 0
			case quoted == 0 && (c == '"' || c == '\''):
				quoted = c
			default:
				word = append(word, c)
			}
		}
		list = append(list, string(word))
	}
}

// escape reads what follows a backslash, and returns where it ends.
func escape(s string, at int) (byte, int) {
	c := s[at]
	at++
	switch {
	case c == 'x' && at < len(s) && hex(s[at]) >= 0:
		b := 0
		for ; at < len(s) && hex(s[at]) >= 0; at++ {
			b = b<<4 | hex(s[at])
		}
		return byte(b), at
	case c == 'c' && at < len(s):
		return s[at] & 0x1f, at + 1
	case '0' <= c && c <= '7':
		b := int(c - '0')
		for n := 0; n < 2 && at < len(s) && '0' <= s[at] && s[at] <= '7'; n++ {
			b = b<<3 | int(s[at]-'0')
			at++
		}
		return byte(b), at
	}
	if i := strings.IndexByte("abEfnrtv", c); i >= 0 {
		return "\a\b\x1b\f\n\r\t\v"[i], at
	}
	return c, at
}

func hex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
