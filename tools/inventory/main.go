// Inventory says what a binary of xdirector is made of, and under which licences. The modules are those that the binary
// itself names; the texts come from the module cache and from bpf/include. In the root of the sources,
//
//	inventory BINARY VERSION FOLDER
//
// writes xdirector.cdx.json (a bill of materials, CycloneDX 1.5) and THIRD-PARTY-LICENSES to the folder. Their time is
// SOURCE_DATE_EPOCH, so that the same binary gives the same files.
package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "inventory: use: inventory BINARY VERSION FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "inventory:", err)
		os.Exit(1)
	}
}

func write(binary, version, folder string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read what %s is built of: %w", binary, err)
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("read the time from SOURCE_DATE_EPOCH, in seconds: %w", err)
	}
	parts, err := partsOf(info)
	if err != nil {
		return err
	}
	bill, err := billOf(binary, info.Main.Path, version, time.Unix(seconds, 0), parts)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "xdirector.cdx.json"), bill, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "THIRD-PARTY-LICENSES"), licencesOf(parts), 0o644)
}
