package config

import (
	"regexp"

	"gopkg.in/yaml.v3"
)

// shape is what may stand at a key, as the decoder knows it: a reader that is handed a value with a shape fills that in and
// reads nothing. So the JSON schema for editors and the manual page say what the decoder does, and not what somebody believed.
type shape struct {
	kind      string         // one of the constants below
	allowed   string         // kindText: in words
	words     []string       // kindText: these and no others; nil: any
	pattern   *regexp.Regexp // kindText: nil: none
	most      int            // kindText: bytes; 0: as many as you like
	empty     bool           // kindText: "" is a value
	low, high int64          // kindInteger
	keys      []shapeKey     // kindMapping, in the order of messages
	needs     [][]string     // kindMapping: the keys of one of these; nil: what is required is enough
	each      *shape         // kindList
	either    []*shape       // kindEither
}

const (
	kindText    = "text"
	kindInteger = "integer"
	kindBoolean = "boolean"
	kindMapping = "mapping"
	kindList    = "list"
	kindEither  = "either"
)

// shapeKey is one key of a mapping.
type shapeKey struct {
	name     string
	required bool
	shape    *shape
}

// shapeOf asks a reader what it reads.
func shapeOf(read func(value)) *shape {
	s := &shape{}
	read(value{node: &yaml.Node{}, shape: s})
	return s
}

// shapeOfFile is that of a whole configuration file.
func shapeOfFile() *shape {
	return shapeOf(func(v value) { newDecoder("", 0).config(v) })
}

func (s *shape) mapping(fields []field) {
	s.kind = kindMapping
	for _, f := range fields {
		if f.read != nil {
			s.keys = append(s.keys, shapeKey{f.key, f.missing != "", shapeOf(f.read)})
		}
	}
}

func (s *shape) list(each func(value)) { s.kind, s.each = kindList, shapeOf(each) }

func (s *shape) text(allowed string) { s.kind, s.allowed = kindText, allowed }

func (s *shape) integer(low, high int64) { s.kind, s.low, s.high = kindInteger, low, high }

// oneOf is for what can be written in several ways.
func (s *shape) oneOf(reads ...func(value)) {
	s.kind = kindEither
	for _, read := range reads {
		s.either = append(s.either, shapeOf(read))
	}
}

// goDuration is what time.ParseDuration reads, with a unit.
var goDuration = regexp.MustCompile(`^[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`)

func (s *shape) duration(allowed string) {
	s.text("a duration, " + allowed)
	s.pattern = goDuration
}

// matches notes the pattern of a text, for a value that is only described.
func (v value) matches(pattern *regexp.Regexp) {
	if v.shape != nil {
		v.shape.pattern = pattern
	}
}
