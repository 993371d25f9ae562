package sbom

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Type is the predicate type of what [Found.SPDX] writes.
const Type = "https://spdx.dev/Document"

// About is what a document says of itself.
type About struct {
	// Name is what was scanned.
	Name string
	// Tool is the scanner with its version, "slipway-1.2".
	Tool string
	// Created is when.
	Created time.Time
}

type document struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Relationships []relationship `json:"relationships"`
	Comment       string         `json:"comment,omitempty"`
}

type creation struct {
	Creators []string `json:"creators"`
	Created  string   `json:"created"`
}

type spdxPackage struct {
	Name       string        `json:"name"`
	ID         string        `json:"SPDXID"`
	Version    string        `json:"versionInfo,omitempty"`
	Supplier   string        `json:"supplier"`
	Location   string        `json:"downloadLocation"`
	Analyzed   bool          `json:"filesAnalyzed"`
	Source     string        `json:"sourceInfo,omitempty"`
	Concluded  string        `json:"licenseConcluded"`
	Declared   string        `json:"licenseDeclared"`
	Copyright  string        `json:"copyrightText"`
	References []externalRef `json:"externalRefs,omitempty"`
	Purpose    string        `json:"primaryPackagePurpose,omitempty"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	To   string `json:"relatedSpdxElement"`
	Type string `json:"relationshipType"`
}

const (
	noAssertion = "NOASSERTION"
	documentID  = "SPDXRef-DOCUMENT"
	rootID      = "SPDXRef-Root"
)

// SPDX writes the document as JSON (SPDX 2.3). Equal findings and an equal About give equal bytes.
func (f *Found) SPDX(about About) ([]byte, error) {
	d := document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: documentID, Name: about.Name,
		Creation: creation{Creators: []string{"Tool: " + about.Tool}, Created: about.Created.UTC().Format(time.RFC3339)},
		Packages: []spdxPackage{{
			Name: about.Name, ID: rootID, Supplier: noAssertion, Location: noAssertion, Concluded: noAssertion, Declared: noAssertion,
			Copyright: noAssertion, Purpose: "CONTAINER",
		}},
		Relationships: []relationship{{documentID, rootID, "DESCRIBES"}},
	}
	if len(f.Skipped) > 0 {
		d.Comment = "Not understood: " + strings.Join(f.Skipped, "; ")
	}
	all := sha256.New()
	for _, p := range f.Packages {
		fmt.Fprintf(all, "%q %q\n", p.URL, p.Found)
		one := p.spdx()
		d.Packages = append(d.Packages, one)
		d.Relationships = append(d.Relationships, relationship{rootID, one.ID, "CONTAINS"})
	}
	fmt.Fprintf(all, "%q %q", about.Name, d.Creation.Created)
	d.Namespace = "https://github.com/slipwaybuild/slipway/spdx/" + hex.EncodeToString(all.Sum(nil))
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write SPDX document: %w", err)
	}
	return b, nil
}

func (p Package) spdx() spdxPackage {
	sum := sha256.Sum256([]byte(p.URL + "\x00" + p.Found))
	s := spdxPackage{
		Name: p.Name, ID: "SPDXRef-Package-" + hex.EncodeToString(sum[:8]), Version: p.Version, Supplier: noAssertion,
		Location: noAssertion, Source: "told by " + p.Found, Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion,
		References: []externalRef{{"PACKAGE-MANAGER", "purl", p.URL}},
	}
	if p.License != "" {
		s.Declared = p.License
	}
	if p.Supplier != "" {
		// The form is "Person: name (address)".
		s.Supplier = "Person: " + strings.NewReplacer("<", "(", ">", ")").Replace(p.Supplier)
	}
	return s
}
