// Package statefile keeps the small files of state_dir: what a director must know again after a crash, and what the
// kernel has forgotten after a reboot. Each file carries the boot id of the kernel that it is about.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is what stands in a file.
type file struct {
	BootID  string          `json:"boot_id"`
	Content json.RawMessage `json:"content"`
}

// BootID names this boot of the kernel.
func BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// Read fills content from the file at path, and says whether there is one of this boot. A missing file and one of
// another boot are none; one that can't be read is an error, and none either.
func Read(path, bootID string, content any) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read state: %w", err)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return false, fmt.Errorf("read state %s: %w", path, err)
	}
	if f.BootID != bootID {
		return false, nil
	}
	if err := json.Unmarshal(f.Content, content); err != nil {
		return false, fmt.Errorf("read state %s: %w", path, err)
	}
	return true, nil
}

// Write replaces the file at path in one step, so that no crash leaves half of one. Its folder is made if need be. It
// need not survive a loss of power: that is a boot.
func Write(path, bootID string, content any) error { return write(path, bootID, content, 0o644) }

// WriteSecret is Write for what nobody but the owner may read.
func WriteSecret(path, bootID string, content any) error { return write(path, bootID, content, 0o600) }

func write(path, bootID string, content any, mode fs.FileMode) error {
	raw, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	data, err := json.MarshalIndent(file{bootID, raw}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.WriteFile(path+".new", append(data, '\n'), mode); err != nil {
		os.Remove(path + ".new") // half of it would take what is left of a full disk
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// Remove deletes the file at path, if it is there.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}
