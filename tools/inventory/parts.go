package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// part is what the binary has of others.
type part struct {
	name, version string
	purl          string   // package URL, the name that tools for all languages share
	licences      []string // SPDX expressions
	texts         []text
}

// text is a file of a licence, or what belongs to one: NOTICE, PATENTS.
type text struct{ name, body string }

// partsOf returns the standard library, the modules that are linked, and the headers that the BPF object is compiled with.
func partsOf(info *debug.BuildInfo) ([]part, error) {
	root, err := output("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	std := part{name: "std", version: strings.TrimPrefix(info.GoVersion, "go")}
	if err := std.read(root); err != nil {
		return nil, err
	}
	parts := []part{std}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		// Downloaded for the build, so this only says where it lies.
		folder, err := output("go", "list", "-m", "-f", "{{.Dir}}", module.Path)
		if err != nil {
			return nil, err
		}
		p := part{name: module.Path, version: module.Version}
		if err := p.read(folder); err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	for i := range parts {
		parts[i].purl = "pkg:golang/" + parts[i].name + "@" + parts[i].version
	}
	libbpf, err := headers("bpf/include/VERSION")
	return append(parts, libbpf), err
}

var papers = regexp.MustCompile(`(?i)^(licen[cs]es?|copying|notice|patents)(\.(md|txt))?$`)

// read reads the papers of a module; those without a licence are an error.
func (p *part) read(folder string) error {
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		top := filepath.Dir(path) == folder
		switch {
		case err != nil:
			return err
		case path == folder:
			return nil
		case entry.IsDir():
			if !papers.MatchString(entry.Name()) || !top {
				return fs.SkipDir
			}
			return nil
		case top && !papers.MatchString(entry.Name()):
			return nil
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		p.texts = append(p.texts, text{name, string(body)})
		p.licences = append(p.licences, licencesIn(string(body))...)
		return nil
	})
	slices.Sort(p.licences)
	p.licences = slices.Compact(p.licences)
	if err == nil && p.licences == nil {
		err = errors.New("no licence that is known here")
	}
	if err != nil {
		return fmt.Errorf("find the licence of %s in %s: %w", p.name, folder, err)
	}
	return nil
}

// licencesIn tells licences by words that no other one has. None is found in what is no licence.
func licencesIn(body string) (ids []string) {
	body = strings.Join(strings.Fields(body), " ")
	has := func(words string) bool { return strings.Contains(body, words) }
	if has("Apache License Version 2.0, January 2004") || has("Licensed under the Apache License, Version 2.0") {
		ids = append(ids, "Apache-2.0")
	}
	if has("Permission is hereby granted, free of charge, to any person obtaining a copy") {
		ids = append(ids, "MIT")
	}
	if has("Permission to use, copy, modify, and/or distribute this software for any purpose") {
		ids = append(ids, "ISC")
	}
	if has("Redistribution and use in source and binary forms") {
		if has("Neither the name") || has("nor the names") {
			return append(ids, "BSD-3-Clause")
		}
		return append(ids, "BSD-2-Clause")
	}
	return ids
}

var libbpfVersion = regexp.MustCompile(`from libbpf ([0-9.]+)`)

// headers reads which libbpf the vendored headers are of; we use them under the second of their licences.
func headers(file string) (part, error) {
	body, err := os.ReadFile(file)
	if err != nil {
		return part{}, fmt.Errorf("read where the headers of bpf/ come from: %w", err)
	}
	version := libbpfVersion.FindSubmatch(body)
	if version == nil {
		return part{}, fmt.Errorf("find the version of libbpf in %s", file)
	}
	p := part{name: "libbpf", version: string(version[1]), licences: []string{"BSD-2-Clause"}}
	p.purl = "pkg:github/libbpf/libbpf@v" + p.version
	licence, err := os.ReadFile(filepath.Join(filepath.Dir(file), "LICENSE.BSD-2-Clause"))
	if err != nil {
		return part{}, fmt.Errorf("read the licence of libbpf: %w", err)
	}
	p.texts = []text{{"VERSION", string(body)}, {"LICENSE.BSD-2-Clause", string(licence)}}
	return p, nil
}

// licencesOf is what a person reads: a list, then every text.
func licencesOf(parts []part) []byte {
	var b bytes.Buffer
	b.WriteString("What the binary xdirector has of others, and the texts of their licences.\n\n")
	for _, p := range parts {
		fmt.Fprintf(&b, "%s %s: %s\n", p.name, p.version, strings.Join(p.licences, " AND "))
	}
	for _, p := range parts {
		for _, t := range p.texts {
			line := strings.Repeat("=", 80)
			fmt.Fprintf(&b, "\n%s\n%s %s: %s\n%s\n\n%s\n", line, p.name, p.version, t.name, line, strings.TrimRight(t.body, "\n"))
		}
	}
	return b.Bytes()
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
