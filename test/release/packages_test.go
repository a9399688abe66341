// Package release_test looks at what is delivered: the packages that `make packages` has built, and the release.
package release_test

import (
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// command runs a command in the root of the sources, and returns what it prints.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		var text string
		if failed, ok := err.(*exec.ExitError); ok {
			text = string(failed.Stderr)
		}
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(out))
}

func TestVersionsOfPackagesSortAsReleasesDo(t *testing.T) {
	versions := []struct{ described, packaged string }{ // the older before the newer
		{"v1.2.3", "1.2.3"},
		{"v1.2.3-4-gabc1234", "1.2.3+4.gabc1234"},
		{"v1.2.3-4-gabc1234-dirty", "1.2.3+4.gabc1234.dirty"},
		{"v1.2.3-12-gabc1234", "1.2.3+12.gabc1234"},
		{"v1.3.0-rc1", "1.3.0~rc1"},
		{"v1.3.0-rc1-4-gabc1234", "1.3.0~rc1+4.gabc1234"},
		{"v1.3.0-rc2-dirty", "1.3.0~rc2+dirty"},
		{"v1.3.0", "1.3.0"},
		{"v1.10.0", "1.10.0"},
	}
	for i, v := range versions {
		if got := command(t, "tools/package-version", v.described); got != v.packaged {
			t.Errorf("%s is packaged as %s, not %s", v.described, got, v.packaged)
		}
		if i > 0 {
			command(t, "dpkg", "--compare-versions", versions[i-1].packaged, "lt", v.packaged)
		}
	}
	// Without a tag it is older than every release.
	command(t, "dpkg", "--compare-versions", command(t, "tools/package-version", "abc1234"), "lt", "0.0.1")
}

// tree unpacks the .deb of an architecture, and returns where.
func tree(t *testing.T, folder, arch string) string {
	t.Helper()
	packages, err := filepath.Glob(filepath.Join(root, folder, "xdirector_*_"+arch+".deb"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("%s has %d packages for %s (make packages): %v", folder, len(packages), arch, err)
	}
	to := t.TempDir()
	command(t, "dpkg-deb", "-x", strings.TrimPrefix(packages[0], root+"/"), to)
	return to
}

// With XDIRECTOR_RELEASE=1 the packages of bin/release are looked at as well.
func TestPackageHoldsAStaticBinaryAndNamesAllThatIsInIt(t *testing.T) {
	here := command(t, "dpkg", "--print-architecture")
	look(t, tree(t, "bin/packages", here))
	if os.Getenv("XDIRECTOR_RELEASE") == "1" {
		for _, arch := range []string{"amd64", "arm64"} {
			look(t, tree(t, "bin/release", arch))
		}
	}
}

// look fails if a package of this tree isn't right.
func look(t *testing.T, tree string) {
	t.Helper()
	binary := filepath.Join(tree, "usr/bin/xdirector")
	program, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static: it has a segment %v", binary, segment.Type)
		}
	}

	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	linked := []string{"std@" + strings.TrimPrefix(info.GoVersion, "go")}
	for _, module := range info.Deps {
		linked = append(linked, module.Path+"@"+module.Version)
	}
	_, libbpf, _ := strings.Cut(command(t, "grep", "-o", "from libbpf [0-9.]*", "bpf/include/VERSION"), "from libbpf ")
	linked = append(linked, "libbpf@"+libbpf)
	if len(linked) < 20 {
		t.Fatalf("%s names %v: these are not all", binary, linked)
	}
	about := filepath.Join(tree, "usr/share/doc/xdirector")
	sizes := texts(t, filepath.Join(about, "THIRD-PARTY-LICENSES"))
	listed := named(t, filepath.Join(about, "xdirector.cdx.json"))
	for _, module := range linked {
		if !slices.Contains(listed, module) {
			t.Errorf("xdirector.cdx.json doesn't name %s", module)
		}
		if size := sizes[strings.Replace(module, "@", " ", 1)]; size < 500 {
			t.Errorf("THIRD-PARTY-LICENSES has %d bytes of text for %s", size, module)
		}
	}
	if len(listed) != len(linked) {
		t.Errorf("xdirector.cdx.json names %d parts, linked are %d:\n%v\n%v", len(listed), len(linked), listed, linked)
	}
}

// named returns the parts that a bill of materials names, as name@version.
func named(t *testing.T, file string) (list []string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		Components []struct {
			Name, Version, PURL string
			Licenses            []struct{ Expression string }
		}
	}
	if err := json.Unmarshal(data, &bill); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for _, c := range bill.Components {
		if len(c.Licenses) != 1 || c.Licenses[0].Expression == "" || !strings.HasSuffix(c.PURL, c.Version) {
			t.Errorf("%s: a part without a licence or name: %+v", file, c)
		}
		list = append(list, c.Name+"@"+c.Version)
	}
	return list
}

// texts returns how many bytes of licences a part has, by name and version.
func texts(t *testing.T, file string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int{}
	line := "\n" + strings.Repeat("=", 80) + "\n" // above and below a title
	sections := strings.Split(string(data), line)
	for i := 1; i+1 < len(sections); i += 2 {
		part, _, _ := strings.Cut(sections[i], ":")
		sizes[part] += len(sections[i+1])
	}
	return sizes
}
