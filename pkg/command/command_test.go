package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// safeFolder makes a folder that only root can write, all the way up. What tests usually get lies in /tmp.
func safeFolder(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("LAB") != "" {
			t.Fatal("not root")
		}
		t.Skip("not root")
	}
	dir, err := os.MkdirTemp("/var/lib", "xdirector-command-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writeScript makes a script of the mode, whatever the umask is.
func writeScript(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func shell(user, line string) Command {
	return Command{Line: []string{"/bin/sh", "-c", line}, Timeout: 5 * time.Second, User: user}
}

func runOnce(t *testing.T, c Command) error {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- c.Run(t.Context()) }()
	select {
	case err := <-result:
		return err
	case <-time.After(c.Timeout + 10*time.Second):
		t.Fatal("the run does not end")
		return nil
	}
}

func TestCommandRunsWithNothingButItsUsersRights(t *testing.T) {
	safeFolder(t)
	if err := os.Setenv("XDIRECTOR_SECRET", "1"); err != nil {
		t.Fatal(err)
	}
	defer os.Unsetenv("XDIRECTOR_SECRET")
	// A file that this process got from its parent is not marked to be closed.
	inherited, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	for name, line := range map[string]string{
		"user":              `[ "$(id -un)" = nobody ]`,
		"group":             `[ "$(id -gn)" = nogroup ]`,
		"other groups":      `[ "$(id -G | wc -w)" = 1 ]`,
		"capabilities":      `grep -q "^CapEff:[[:space:]]*0*$" /proc/self/status && grep -q "^CapPrm:[[:space:]]*0*$" /proc/self/status`,
		"no new privileges": `grep -q "^NoNewPrivs:[[:space:]]*1$" /proc/self/status`,
		"environment":       `[ "$(env | grep -vE "^(PATH|PWD|SHLVL|_|OLDPWD)=" | wc -l)" = 0 ] && [ -n "$PATH" ]`,
		"folder":            `[ "$PWD" = / ]`,
		"stdin":             `[ "$(readlink /proc/self/fd/0)" = /dev/null ]`,
		"open files":        `ls -l /proc/self/fd && ! ls -l /proc/self/fd | grep -q /etc/passwd`,
		"session":           `[ "$(cut -d" " -f6 /proc/$$/stat)" = $$ ]`,
		"terminal":          `! (: </dev/tty) 2>/dev/null`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := runOnce(t, shell("nobody", line)); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		})
	}
	if err := runOnce(t, shell("root", `[ "$(id -u)" = 0 ]`)); err != nil {
		t.Errorf("as root: %v", err)
	}
}

func TestEndsOfACommandAreToldInPlainWords(t *testing.T) {
	dir := safeFolder(t)
	script := func(name, text string, mode os.FileMode) []string {
		return []string{writeScript(t, filepath.Join(dir, name), text, mode)}
	}
	long := strings.Repeat("x", 1000)
	for name, tt := range map[string]struct {
		command []string
		user    string
		want    string // empty: no error
	}{
		"success":              {script("good", "#!/bin/sh\nexit 0\n", 0o755), "nobody", ""},
		"status":               {script("status", "#!/bin/sh\nexit 3\n", 0o755), "nobody", "exit status 3"},
		"last line":            {[]string{"/bin/sh", "-c", "echo first; echo; echo 'no answer' >&2; exit 1"}, "nobody", "exit status 1: no answer"},
		"line without end":     {[]string{"/bin/sh", "-c", "echo first; printf last; exit 1"}, "nobody", "exit status 1: last"},
		"line that is long":    {[]string{"/bin/sh", "-c", "echo " + long + "; exit 1"}, "nobody", "exit status 1: " + long[:maxLine]},
		"line of control":      {[]string{"/bin/sh", "-c", `printf 'a\033[2Jb\377\n'; exit 1`}, "nobody", "exit status 1: a [2Jb?"},
		"signal":               {[]string{"/bin/sh", "-c", "kill -SEGV $$"}, "nobody", "it was ended by a signal: segmentation fault"},
		"no such file":         {[]string{filepath.Join(dir, "none")}, "nobody", filepath.Join(dir, "none") + " does not exist"},
		"a folder":             {[]string{dir}, "nobody", dir + " is no file (drwxr-xr-x): name the program itself"},
		"not executable":       {script("plain", "#!/bin/sh\n", 0o644), "nobody", "user nobody may not run " + dir + "/plain: chmod o+rx "},
		"no interpreter":       {script("odd", "#!/nosuch/interpreter\n", 0o755), "nobody", "the interpreter that its first line names does not exist"},
		"no program":           {script("text", "exit 0\n", 0o755), "nobody", dir + "/text is no program: a script begins with a line like #!/bin/sh"},
		"no such user":         {[]string{"/bin/true"}, "nosuchuser", `there is no user "nosuchuser" in /etc/passwd`},
		"user by number":       {[]string{"/bin/sh", "-c", "[ $(id -u) = 65534 ]"}, "65534", ""},
		"background with pipe": {[]string{"/bin/sh", "-c", "sleep 100 & exit 0"}, "nobody", ""},
		"a flood of output":    {[]string{"/bin/sh", "-c", "head -c 20000000 /dev/zero; echo; echo end; exit 1"}, "nobody", "exit status 1: end"},
	} {
		t.Run(name, func(t *testing.T) {
			err := runOnce(t, Command{Line: tt.command, Timeout: 5 * time.Second, User: tt.user})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("error %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// alive says whether a process runs; a zombie doesn't.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestTimeoutKillsTheWholeGroup(t *testing.T) {
	dir := safeFolder(t)
	pids := filepath.Join(dir, "pids")
	if err := os.WriteFile(pids, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(pids, 0o666); err != nil {
		t.Fatal(err)
	}
	s := shell("nobody", `trap "" TERM; (sleep 1000 & echo $! >>`+pids+`; wait) & echo $! $$ >>`+pids+`; echo looking; wait`)
	s.Timeout = 300 * time.Millisecond
	began := time.Now()
	err := runOnce(t, s)
	if err == nil || err.Error() != "it did not end within 300ms and was killed: looking" {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took < s.Timeout || took > 10*s.Timeout {
		t.Errorf("it took %v", took)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Fields(string(text))
	if len(list) != 3 {
		t.Fatalf("processes %q, want a child, a grandchild and the script", list)
	}
	for _, word := range list {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the end of process "+word, func() bool { return !alive(pid) })
	}
}

// waitFor waits until a fact is so.
func waitFor(t *testing.T, what string, fact func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !fact() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited for %s", what)
		}
	}
}

func TestCommandThatOthersCanChangeIsRefused(t *testing.T) {
	dir := safeFolder(t)
	const nobody = 65534
	folder := func(name string, mode os.FileMode, owner int) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Chmod(path, uint32(mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script := func(path string, mode os.FileMode, owner int) string {
		writeScript(t, path, "#!/bin/sh\nexit 0\n", mode)
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(target, name string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := folder("good", 0o755, 0)
	fine := script(filepath.Join(good, "chk"), 0o755, 0)
	open := folder("open", 0o777, 0)
	shared := folder("shared", 0o775, 0)
	sticky := folder("sticky", 0o1777, 0)
	theirs := folder("theirs", 0o755, nobody)
	below := filepath.Join(open, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	in := func(folder string) string { return script(filepath.Join(folder, "chk"), 0o755, 0) }
	inTheirs := in(theirs)
	for name, tt := range map[string]struct {
		command []string
		uid     int
		want    string // empty: accepted
	}{
		"safe":                              {[]string{fine}, nobody, ""},
		"safe, as root":                     {[]string{fine}, 0, ""},
		"an ordinary program":               {[]string{"/bin/sh"}, 0, ""},
		"file that all can write":           {[]string{script(filepath.Join(good, "all"), 0o757, 0)}, nobody, "refused: " + good + "/all (mode 0757) can be written by others, who could change what is run: chmod go-w " + good + "/all"},
		"file that its group can write":     {[]string{script(filepath.Join(good, "group"), 0o775, 0)}, nobody, "chmod go-w " + good + "/group"},
		"file of another user":              {[]string{script(filepath.Join(good, "other"), 0o755, 1)}, nobody, "refused: " + good + "/other (mode 0755) belongs to user 1, who could change what is run: chown root " + good + "/other"},
		"file of its own user":              {[]string{script(filepath.Join(good, "own"), 0o755, nobody)}, nobody, ""},
		"file of a user, as root":           {[]string{script(filepath.Join(good, "own2"), 0o755, nobody)}, 0, "belongs to user 65534"},
		"folder that all can write":         {[]string{in(open)}, nobody, "refused: " + open + " (mode 0777)"},
		"folder above that all can write":   {[]string{in(below)}, nobody, "refused: " + open + " (mode 0777)"},
		"folder that its group can write":   {[]string{in(shared)}, nobody, "chmod go-w " + shared},
		"sticky folder":                     {[]string{in(sticky)}, nobody, "(mode 1777) can be written by others, who could change what is run: put it into another folder"},
		"/tmp":                              {[]string{"/tmp/chk"}, nobody, "refused: /tmp (mode 1777)"},
		"folder of its own user":            {[]string{inTheirs}, nobody, ""},
		"folder of a user, as root":         {[]string{inTheirs}, 0, "refused: " + theirs + " (mode 0755) belongs to user 65534"},
		"link to a safe file":               {[]string{link(fine, "link")}, nobody, ""},
		"relative link":                     {[]string{link("good/../good/chk", "relative")}, nobody, ""},
		"link to a folder":                  {[]string{filepath.Join(link(good, "linked"), "chk")}, nobody, ""},
		"link to an unsafe folder":          {[]string{filepath.Join(link(open, "linkedopen"), "chk")}, nobody, "refused: " + open},
		"link in an unsafe folder":          {[]string{linkIn(t, open, fine)}, nobody, "refused: " + open},
		"link through an unsafe folder":     {[]string{link("open/../good/chk", "through")}, nobody, "refused: " + open},
		"links in a circle":                 {[]string{link("circle", "circle")}, nobody, "too many symbolic links"},
		"link to nothing":                   {[]string{link("nothing", "dangling")}, nobody, "does not exist"},
		"unsafe argument, as root":          {[]string{"/bin/sh", "-e", inTheirs}, 0, "; or don't run it as root"},
		"unsafe argument, as another":       {[]string{"/bin/sh", inTheirs}, nobody, ""},
		"argument that is no file, as root": {[]string{"/bin/sh", "-c", "exit 0"}, 0, ""},
		"second argument, as root":          {[]string{"/bin/grep", "word", "/tmp/log"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := secure(tt.command, tt.uid)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("error %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// linkIn makes a link in a folder.
func linkIn(t *testing.T, folder, target string) string {
	t.Helper()
	path := filepath.Join(folder, "link")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRefusedCommandIsNotRun(t *testing.T) {
	dir := safeFolder(t)
	trace := filepath.Join(dir, "trace")
	path := writeScript(t, filepath.Join(dir, "chk"), "#!/bin/sh\ntouch "+trace+"\n", 0o777)
	err := runOnce(t, Command{Line: []string{path}, Timeout: time.Second, User: "root"})
	if err == nil || !strings.HasPrefix(err.Error(), "refused: "+path) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("it ran")
	}
	if err := os.Chmod(path, 0o755); err != nil { // the cure that was told
		t.Fatal(err)
	}
	if err := runOnce(t, Command{Line: []string{path}, Timeout: time.Second, User: "root"}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(trace); err != nil {
		t.Errorf("with the cure it did not run: %v", err)
	}
}

func TestCommandGetsItsInputAndItsEnvironment(t *testing.T) {
	safeFolder(t)
	c := shell("nobody", `[ "$STATE" = MASTER ] && [ "$(cat)" = "a line" ]`)
	c.Env, c.Input = []string{"STATE=MASTER"}, []byte("a line\n")
	if err := runOnce(t, c); err != nil {
		t.Error(err)
	}
	c = shell("nobody", "exit 0") // reads nothing of what doesn't fit into a pipe
	c.Input = make([]byte, 1<<20)
	if err := runOnce(t, c); err != nil {
		t.Error(err)
	}
}

func TestFaultOfThisBoxIsNoneOfTheCommand(t *testing.T) {
	for _, err := range []error{unix.EAGAIN, fmt.Errorf("start: %w", unix.EMFILE)} {
		if !IsOwnFault(err) {
			t.Errorf("%v counts as a failure of the command", err)
		}
	}
	if IsOwnFault(errors.New("exit status 1")) || IsOwnFault(nil) {
		t.Error("an end of a command counts as a fault of this box")
	}
}
