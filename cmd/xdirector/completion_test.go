package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shell is one that completes.
type shell struct {
	name string
	// script prints the completions of the command line in $LINE, one a line. $SCRIPT is the file that the command has printed.
	script string
}

// In bash and zsh there is no command that says what a key would do. So bash gets what readline would give to the function that
// `complete -p` names; and in zsh the key is pressed, in a terminal of its own, with a list that has one match on each line.
var completing = []shell{
	{"bash", `. /usr/share/bash-completion/bash_completion
. "$SCRIPT"
[[ $(complete -p xdirector) =~ -F\ ([a-z_]+)\ xdirector ]] || exit 9
COMP_LINE=$LINE COMP_POINT=${#LINE} COMP_TYPE=9 COMP_KEY=9
read -ra COMP_WORDS <<<"$LINE"
[[ $LINE != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
"${BASH_REMATCH[1]}" xdirector "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\n' "${COMPREPLY[@]}"`},
	{"zsh", `zmodload zsh/zpty
zpty z zsh -f -i
heard() { while [[ $out != *$1* ]]; do zpty -r z chunk || exit 9; out+=$chunk; done }
out= chunk=
zpty -w z 'PS1= ; stty columns 200 rows 100 -echo; autoload -U compinit && compinit -u; unsetopt AUTO_MENU ZLE_BRACKETED_PASTE; LISTMAX=1000'
zpty -w z 'zstyle ":completion:*" force-list always; zle-line-init() { print RE""ADY }; zle -N zle-line-init; . $SCRIPT; compdef _xdirector xdirector'
heard READY
zpty -w -n z "$LINE"$'\C-d\C-a\C-kprint DO""NE\n'
heard DONE
zpty -d z
print -r -- "${out##*READY}"`},
	{"fish", `source $SCRIPT; complete -C "$LINE"`},
}

func TestShellsCompleteCommandsFlagsAndNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(dir, "xdirector")); err != nil {
		t.Fatal(err)
	}
	config := serveDirector(t, flowing())
	lines := []struct {
		line string
		want []string // all of these, and no other word that is the beginning of a command or name
		none []string
	}{
		{"xdirector st", []string{"status"}, []string{"reload"}},
		{"xdirector status --wat", []string{"--watch"}, []string{"--json"}},
		{"xdirector --config " + config + " status ", []string{"VI_1", "dns", "web"}, nil},
		{"xdirector --config " + config + " drain web/", []string{"web/192.168.5.103", "web/192.168.5.104"}, []string{"dns/192.168.5.103"}},
		{"xdirector events --kinds in", []string{"instance"}, []string{"reload"}},
		{"xdirector real-server ", []string{"install", "remove"}, nil},
		{"xdirector completion ", []string{"bash", "zsh", "fish"}, []string{"powershell"}},
		{"xdirector --config " + config + ".none status ", nil, []string{"VI_1", "web"}},
	}
	for _, s := range completing {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(s.name); err != nil && os.Getenv("LAB") == "" {
				t.Skip("not installed")
			}
			if _, err := os.Stat("/usr/share/bash-completion/bash_completion"); err != nil && s.name == "bash" && os.Getenv("LAB") == "" {
				t.Skip("bash-completion is not installed")
			}
			code, script, stderr := command(t, "completion", s.name)
			file := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(file, []byte(script), 0o644); err != nil || code != 0 || stderr != "" {
				t.Fatalf("exit code %d, stderr %q, %v", code, stderr, err)
			}
			home := t.TempDir()
			for _, l := range lines {
				cmd := exec.Command(s.name, "-c", s.script)
				cmd.Env = append(os.Environ(), "XDIRECTOR_TEST_MAIN=1", "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+home,
					"LINE="+l.line, "SCRIPT="+file, "TERM=dumb")
				var out, errOut bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &errOut
				if err := cmd.Run(); err != nil {
					t.Fatalf("%q: %v\n%s%s", l.line, err, out.String(), errOut.String())
				}
				words := strings.Fields(strings.ReplaceAll(out.String(), "\x1b", " "))
				for _, want := range l.want {
					if !slices.Contains(words, want) {
						t.Errorf("%q completes to\n%s\nwithout %s (stderr %q)", l.line, out.String(), want, errOut.String())
					}
				}
				for _, none := range l.none {
					if slices.Contains(words, none) {
						t.Errorf("%q completes to %s too", l.line, none)
					}
				}
			}
		})
	}
}
