package statefile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdirector/xdirector/pkg/statefile"
)

type content struct {
	Names []string `json:"names"`
}

func TestWhatIsWrittenIsReadInTheSameBootOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new folder", "it.json")
	if err := statefile.Write(path, "this", content{[]string{"a", "b"}}); err != nil {
		t.Fatal(err)
	}
	var got content
	if ok, err := statefile.Read(path, "this", &got); !ok || err != nil {
		t.Fatalf("read: %v, %v", ok, err)
	}
	if diff := cmp.Diff(content{[]string{"a", "b"}}, got); diff != "" {
		t.Errorf("content (-want +got):\n%s", diff)
	}
	if ok, err := statefile.Read(path, "another", &got); ok || err != nil {
		t.Errorf("in another boot: %v, %v", ok, err)
	}
	for range 2 {
		if err := statefile.Remove(path); err != nil {
			t.Error(err)
		}
	}
	if ok, err := statefile.Read(path, "this", &got); ok || err != nil {
		t.Errorf("when removed: %v, %v", ok, err)
	}
}

func TestHalfAFileIsAnErrorThatNamesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "it.json")
	for _, text := range []string{"", `{"boot_id": "this", "content"`, `{"boot_id": "this", "content": []}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got content
		if ok, err := statefile.Read(path, "this", &got); ok || err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, %v; want an error that names the file", text, ok, err)
		}
	}
}

func TestBootIDStays(t *testing.T) {
	first, err := statefile.BootID()
	if err != nil || len(first) != 36 {
		t.Fatalf("%q, %v", first, err)
	}
	if second, _ := statefile.BootID(); second != first {
		t.Errorf("%q, then %q", first, second)
	}
}
