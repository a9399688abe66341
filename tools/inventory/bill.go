package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// The words of CycloneDX 1.5, https://cyclonedx.org/docs/1.5/json/, as far as they are used here.
type (
	bill struct {
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		Serial       string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Time      string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type     string    `json:"type"`
		Ref      string    `json:"bom-ref"`
		Name     string    `json:"name"`
		Version  string    `json:"version"`
		PURL     string    `json:"purl"`
		Hashes   []hash    `json:"hashes,omitempty"`
		Licences []licence `json:"licenses"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	licence struct {
		Expression string `json:"expression"`
	}
	dependency struct {
		Ref string   `json:"ref"`
		On  []string `json:"dependsOn"`
	}
)

// billOf is what a machine reads.
func billOf(binary, module, version string, when time.Time, parts []part) ([]byte, error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	purl := "pkg:golang/" + module + "@" + version
	b := bill{
		Format: "CycloneDX", SpecVersion: "1.5", Version: 1,
		// A name that no other bill has, and that the same binary always gets: a UUID of version 8.
		Serial: fmt.Sprintf("urn:uuid:%x-%x-8%03x-8%03x-%x", sum[0:4], sum[4:6], uint16(sum[6])<<4|uint16(sum[7])>>4, uint16(sum[8])<<4|uint16(sum[9])>>4, sum[10:16]),
		Metadata: metadata{when.UTC().Format(time.RFC3339), component{
			Type: "application", Ref: purl, Name: "xdirector", Version: version, PURL: purl,
			Hashes:   []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
			Licences: []licence{{"Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"}},
		}},
	}
	all := dependency{Ref: purl, On: []string{}}
	for _, p := range parts {
		b.Components = append(b.Components, component{
			Type: "library", Ref: p.purl, Name: p.name, Version: p.version, PURL: p.purl,
			Licences: []licence{{strings.Join(p.licences, " AND ")}},
		})
		all.On = append(all.On, p.purl)
	}
	b.Dependencies = []dependency{all}
	text, err := json.MarshalIndent(b, "", "  ")
	return append(text, '\n'), err
}
