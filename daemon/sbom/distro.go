package sbom

import (
	"errors"
	"strings"

	packageurl "github.com/package-url/packageurl-go"
)

// dpkg reads a status file, deb822 stanzas (dpkg-query(1)), and gives the packages that are installed.
func (d distro) dpkg(b []byte) ([]Package, error) {
	var list []Package
	for stanza := range stanzas(string(b)) {
		f := fields(stanza)
		status := f["status"]
		// Images without a package manager have no status: what is listed is there.
		if f["package"] == "" || status != "" && !strings.HasSuffix(status, " installed") {
			continue
		}
		source, _, _ := strings.Cut(f["source"], " ")
		list = append(list, Package{
			Name: f["package"], Version: f["version"], Supplier: f["maintainer"],
			URL: d.url(packageurl.TypeDebian, "debian", f["package"], f["version"], f["architecture"], source),
		})
	}
	if len(list) == 0 && len(b) > 0 && !strings.Contains(string(b), "Package:") {
		return nil, errors.New("no stanza of a package")
	}
	return list, nil
}

// apk reads an installed data base (apk-installed(5)).
func (d distro) apk(b []byte) ([]Package, error) {
	var list []Package
	for stanza := range stanzas(string(b)) {
		f := map[string]string{}
		for line := range strings.Lines(stanza) {
			// Letters of files and directories come again and again; of the package's own each comes once.
			if k, v, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok && len(k) == 1 && f[k] == "" {
				f[k] = v
			}
		}
		if f["P"] == "" {
			continue
		}
		list = append(list, Package{
			Name: f["P"], Version: f["V"], License: expression(f["L"]), Supplier: f["m"],
			URL: d.url(packageurl.TypeApk, "alpine", f["P"], f["V"], f["A"], f["o"]),
		})
	}
	if len(list) == 0 && len(b) > 0 {
		return nil, errors.New("no stanza of a package")
	}
	return list, nil
}

// stanzas are the parts of a text between empty lines.
func stanzas(s string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for s != "" {
			var stanza string
			stanza, s, _ = strings.Cut(s, "\n\n")
			if strings.TrimSpace(stanza) != "" && !yield(stanza) {
				return
			}
		}
	}
}

// fields reads "Name: value" lines, the first of each name, in small letters. Lines that continue another are left out.
func fields(s string) map[string]string {
	f := map[string]string{}
	for line := range strings.Lines(s) {
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		k, v, ok := strings.Cut(line, ":")
		k = strings.ToLower(strings.TrimSpace(k))
		if _, again := f[k]; ok && !again {
			f[k] = strings.TrimSpace(v)
		}
	}
	return f
}

// expression is a license if it looks like an SPDX expression: identifiers joined by AND, OR and WITH.
func expression(s string) string {
	words := strings.Fields(strings.NewReplacer("(", " ", ")", " ").Replace(s))
	if len(words) == 0 || len(words)%2 == 0 || strings.Count(s, "(") != strings.Count(s, ")") {
		return ""
	}
	for i, w := range words {
		if i%2 == 1 {
			if w != "AND" && w != "OR" && w != "WITH" {
				return ""
			}
			continue
		}
		if !identifiers[w] {
			return ""
		}
	}
	return strings.TrimSpace(s)
}

// identifiers are the licenses and exceptions that are taken for SPDX ones: those that most packages have. Others are told as not
// known, which is true, rather than as something a reader cannot look up.
var identifiers = set("0BSD AFL-2.1 AGPL-3.0-only AGPL-3.0-or-later Apache-2.0 Artistic-1.0-Perl Artistic-2.0 BlueOak-1.0.0 BSD-1-Clause " +
	"BSD-2-Clause BSD-2-Clause-Patent BSD-3-Clause BSD-4-Clause BSL-1.0 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0 CC0-1.0 CDDL-1.0 curl EPL-1.0 " +
	"EPL-2.0 GPL-1.0-only GPL-1.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later ICU IJG ISC LGPL-2.0-only " +
	"LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later Libpng MIT MIT-0 MPL-1.1 MPL-2.0 NCSA " +
	"OLDAP-2.8 OpenSSL PostgreSQL PSF-2.0 Python-2.0 Unicode-DFS-2016 Unlicense W3C WTFPL X11 Zlib ZPL-2.1 " +
	"GCC-exception-3.1 Linux-syscall-note LLVM-exception Classpath-exception-2.0 OpenSSL-exception")

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}
