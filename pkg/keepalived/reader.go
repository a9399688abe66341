package keepalived

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// The bounds of what one file can ask for: definitions can multiply, and includes go round.
const (
	maxLines    = 20000   // that definitions and sequences may expand to
	maxText     = 8 << 10 // bytes of one line when it is expanded
	maxDepth    = 24      // of includes, and of definitions within definitions
	maxFileSize = 4 << 20
	maxFiles    = 1000
)

// token is a statement, or one of the braces around statements.
type token struct {
	text string // "{", "}", or what stands between
	at   *line
}

// reader makes statements of files: it knows comments, definitions, conditions, sequences and includes, but no keyword.
type reader struct {
	root    fs.FS
	options Options
	folder  string // of the file that is being read, absolute
	lines   []*line
	known   map[string][]*line // by the file, which may be read more than once
	tokens  []token
	defs    map[string]*definition
	expands int // lines so far that came out of definitions and sequences
	bytes   int // of them
	files   int
	depth   int
}

func newReader(root fs.FS, o Options) *reader {
	r := &reader{root: root, options: o, defs: map[string]*definition{}, known: map[string][]*line{}}
	for name, value := range map[string]string{"_INSTANCE": o.ConfigID, "_HASH": "#", "_BANG": "!", "_PWD": "", "_RANDOM": ""} {
		r.defs[name] = &definition{value: value, own: true}
	}
	return r
}

// last is the last line that was read; nil if there is none.
func (r *reader) last() *line {
	if len(r.lines) == 0 {
		return nil
	}
	return r.lines[len(r.lines)-1]
}

// file reads one file; shown is its name in the report, name the absolute one.
func (r *reader) file(shown, name string) error {
	f, err := r.root.Open(below(name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileSize {
		return &fs.PathError{Op: "read", Path: shown, Err: errNotConfiguration}
	}
	data, err := fs.ReadFile(r.root, below(name))
	if err != nil {
		return err
	}
	before := r.folder
	r.folder = path.Dir(name)
	defer func() { r.folder = before }()
	r.text(shown, string(data))
	return nil
}

// text reads the lines of a file.
func (r *reader) text(shown, text string) {
	var open *definition // which the next line belongs to
	var held string      // of a line that ends in a backslash without being a definition
	var holder *line
	rows := strings.Split(text, "\n")
	if rows[len(rows)-1] == "" {
		rows = rows[:len(rows)-1]
	}
	if r.known[shown] == nil {
		for n, row := range rows {
			r.known[shown] = append(r.known[shown], &line{file: shown, number: n + 1, text: row})
		}
		r.lines = append(r.lines, r.known[shown]...)
	}
	for _, l := range r.known[shown] {
		clean, more := l.clean()
		l.blank = clean == "" && !more
		l.keyword, l.value = name(clean)
		if open != nil {
			if l.blank {
				open.parts[len(open.parts)-1].at.note(Converted, "the definition ends here, in spite of the backslash: what follows is a blank line or a remark")
				open = nil
				continue
			}
			open.add(clean, l)
			if !more {
				open = nil
			}
			continue
		}
		if holder != nil {
			l.used, clean, l = true, held+" "+clean, holder
			l.keyword, l.value = name(clean)
			holder = nil
		}
		if l.blank {
			continue
		}
		if d := r.define(clean, l, more); d != nil {
			if more {
				open = d
			}
			continue
		}
		if more {
			l.note(Converted, "read together with the next line; keepalived knows a backslash at the end of a line in definitions only, and read neither")
			held, holder = clean, l
			continue
		}
		r.expand(clean, l, 0)
	}
	if holder != nil {
		r.expand(held, holder, 0)
	}
}

// isBlank says what counts as a blank although keepalived takes it for a letter.
func isBlank(c rune) bool {
	switch c {
	case 0xa0, 0x1680, 0x202f, 0x205f, 0x3000, 0xfeff, 0x200b, 0x2060:
		return true
	}
	return 0x2000 <= c && c <= 0x200a
}

// clean returns a line without remarks, white space around it and a backslash at its end, of which it tells.
func (l *line) clean() (text string, more bool) {
	var b strings.Builder
	quoted, strange, remark := false, false, false
	s := strings.TrimRight(l.text, "\r")
scan:
	for at := 0; at < len(s); {
		c, size := utf8.DecodeRuneInString(s[at:])
		latin := c == utf8.RuneError && size == 1 && s[at] == 0xa0
		switch {
		case (isBlank(c) || latin) && !quoted:
			strange = true
			b.WriteByte(' ')
		case c == '"':
			quoted = !quoted
			b.WriteByte('"')
		case c == '\\' && at+1 < len(s) && !quoted && (s[at+1] == '#' || s[at+1] == '!'):
			b.WriteByte(s[at+1])
			size = 2
		case c == '\\' && at+1 < len(s):
			b.WriteString(s[at : at+2])
			size = 2
		case c == '\\' && strings.TrimSpace(s[at+1:]) == "":
			more = true
			break scan
		case !quoted && (c == '#' || c == '!'):
			// A backslash that ends a remark goes on with what stood before it.
			more = strings.HasSuffix(strings.TrimRight(s, " \t"), `\`)
			break scan
		case !quoted && strings.HasPrefix(s[at:], "//") && (at == 0 || strings.TrimRight(b.String(), blanks) != b.String()):
			remark = true
			break scan
		default:
			b.WriteString(s[at : at+size])
		}
		at += size
	}
	text = strings.Trim(b.String(), blanks)
	switch {
	case remark && text == "":
		l.note(NotNeeded, "a remark; keepalived knows # and ! for that, and takes // for a keyword that it doesn't know")
	case remark:
		l.note(Converted, "without the remark; keepalived knows # and ! for that, and takes // for a part of the value")
	}
	if strange && text != "" {
		l.note(Converted, "a character in it looks like a blank (a non-breaking space or a byte order mark); keepalived takes it for a letter, and didn't read this line")
	}
	if quoted {
		l.note(Converted, "the quotation mark is not closed; keepalived reads that as well as it can")
	}
	return text, more
}

// expand makes statements of a line: conditions, sequences, includes, and what stands for something else.
func (r *reader) expand(text string, at *line, depth int) {
	for n := 0; ; n++ {
		if text = strings.Trim(text, blanks); text == "" {
			at.used = true
			return
		}
		if depth > 0 || n > 0 {
			r.expands++
			r.bytes += len(text)
		}
		if r.expands > maxLines || r.bytes > maxLines*100 || depth > maxDepth || n > 1000 || len(text) > maxText {
			at.note(Unsupported, "it expands to more than can be read: at most %d lines, %d levels and %d bytes in a line", maxLines, maxDepth, maxText)
			return
		}
		if text[0] == '@' {
			var yes bool
			if text, yes = r.condition(text, at); !yes {
				return
			}
			continue
		}
		if strings.HasPrefix(text, "~SEQ") || strings.HasPrefix(text, "~LST") {
			r.loop(text, at, depth)
			return
		}
		if list := words(text); len(list) == 2 && slices.Contains(includes(), list[0]) {
			r.include(list[1], at)
			return
		}
		if d := r.define(text, at, false); d != nil {
			return
		}
		replaced, rest, found := r.substitute(text, at)
		if !found {
			r.statement(text, at)
			return
		}
		if rest == nil {
			text = replaced
			continue
		}
		// The definition has several lines; the first one goes on with what stood before it.
		from := at
		if replaced == rest[0].text {
			from = rest[0].at
		}
		at.used = true
		r.expand(replaced, from, depth+1)
		for _, part := range rest[1:] {
			r.expand(part.text, part.at, depth+1)
		}
		return
	}
}

// condition reads @ID and @^ID; what stands behind it counts if the ID is ours, or isn't.
func (r *reader) condition(text string, at *line) (rest string, yes bool) {
	id, rest, _ := strings.Cut(strings.ReplaceAll(text[1:], "\t", " "), " ")
	id, not := strings.CutPrefix(id, "^")
	if (id == r.options.ConfigID) == not {
		word := "for"
		if not {
			word = "for all but"
		}
		at.note(NotNeeded, "it is %s the director %s, and this one is %s (--config-id)", word, quote(id), quote(r.options.ConfigID))
		return "", false
	}
	return rest, true
}

func includes() []string {
	return []string{"include", "includer", "includem", "includew", "includeb", "includea"}
}

// include reads all files of the pattern, in their order, as if they stood here.
func (r *reader) include(pattern string, at *line) {
	at.used = true
	if r.depth >= maxDepth {
		at.note(Unsupported, "includes within includes go deeper than %d; one of the files includes itself", maxDepth)
		return
	}
	folder := path.Dir(at.file)
	found := 0
	for _, p := range alternatives(pattern) {
		names, err := fs.Glob(r.root, below(absolute(r.folder, p)))
		if err != nil {
			at.note(Unsupported, "%s is no pattern of file names", quote(p))
			continue
		}
		for _, name := range names {
			name = "/" + name
			if info, err := fs.Stat(r.root, below(name)); err == nil && info.IsDir() {
				continue
			} else if err == nil && info.Mode().Perm()&0o111 != 0 {
				at.note(Unsupported, "%s is executable, and keepalived doesn't read such a file", name)
				found++
				continue
			}
			if r.files++; r.files > maxFiles {
				at.note(Unsupported, "more than %d files are included", maxFiles)
				return
			}
			shown := name
			if !path.IsAbs(pattern) {
				if rel, ok := strings.CutPrefix(name, strings.TrimSuffix(r.folder, "/")+"/"); ok {
					shown = path.Join(folder, rel)
				}
			}
			found++
			r.depth++
			if err := r.file(shown, name); err != nil {
				at.note(Unsupported, "%s can't be read: %v", name, bare(err))
			}
			r.depth--
		}
	}
	if found == 0 {
		at.note(Unsupported, "there is no such file")
	}
}

// alternatives writes out the braces of a pattern, like {a,b}.
func alternatives(pattern string) []string {
	list := []string{pattern}
	for n := 0; n < len(list) && len(list) < maxFiles; {
		open := strings.IndexByte(list[n], '{')
		end, depth := -1, 0
		var commas []int
		for i := max(open, 0); open >= 0 && i < len(list[n]) && end < 0; i++ {
			switch list[n][i] {
			case '{':
				depth++
			case '}':
				if depth--; depth == 0 {
					end = i
				}
			case ',':
				if depth == 1 {
					commas = append(commas, i)
				}
			}
		}
		if end < 0 {
			n++
			continue
		}
		p, from := list[n], open+1
		var all []string
		for _, to := range append(commas, end) {
			all = append(all, p[:open]+p[from:to]+p[end+1:])
			from = to + 1
		}
		list = slices.Replace(list, n, n+1, all...)
	}
	return list
}

// statement splits a line at its braces. Those within double quotes are text, and so are those of a name that nobody has defined.
func (r *reader) statement(text string, at *line) {
	quoted, from := false, 0
	emit := func(s string) {
		if s = strings.Trim(s, blanks); s != "" {
			r.tokens = append(r.tokens, token{s, at})
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '$' && i+1 < len(text) && text[i+1] == '{' && strings.IndexByte(text[i:], '}') > 0:
			i += strings.IndexByte(text[i:], '}')
			at.note(Unsupported, "%s is not defined", quote(text[strings.LastIndexByte(text[:i], '$'):i+1]))
		case c == '{' || c == '}':
			emit(text[from:i])
			emit(text[i : i+1])
			from = i + 1
		}
	}
	emit(text[from:])
}
