package sbom

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

func tree(t *testing.T, files map[string]string) fstree.Tree {
	t.Helper()
	d := fstree.NewDelta(fstree.Empty())
	for name, text := range files {
		dir := filepath.Dir(name)
		if err := d.MkdirAll(t.Context(), fstree.Entry{Path: dir, Mode: fstree.ModeDir | 0o755}); err != nil {
			t.Fatal(err)
		}
		mode := uint32(0o644)
		if strings.Contains(name, "bin/") {
			mode = 0o755
		}
		e := fstree.Entry{Path: name, Mode: fstree.ModeRegular | mode, Size: int64(len(text))}
		if err := d.Put(t.Context(), e, fstree.Bytes([]byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func urls(f *Found) []string {
	var list []string
	for _, p := range f.Packages {
		list = append(list, p.URL)
	}
	return list
}

const status = `Package: base-files
Status: install ok installed
Maintainer: Santiago Vila <sanvila@debian.org>
Architecture: amd64
Version: 12.4+deb12u5
Description: Debian base system miscellaneous files
 This package contains the basic filesystem hierarchy.
 Version: 99

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: install ok installed
Source: glibc (2.36-9)
Architecture: amd64
Version: 2.36-9+deb12u7
`

func TestScanFindsWhatIsInstalled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"dpkg": {map[string]string{"etc/os-release": "ID=debian\nVERSION_ID=\"12\"\n", "var/lib/dpkg/status": status}, []string{
			"pkg:deb/debian/base-files@12.4%2Bdeb12u5?arch=amd64&distro=debian-12",
			"pkg:deb/debian/libc6@2.36-9%2Bdeb12u7?arch=amd64&distro=debian-12&upstream=glibc",
		}},
		"distroless": {map[string]string{
			"var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2024a\nArchitecture: all\n", "var/lib/dpkg/status.d/tzdata.md5sums": "x y\n",
		}, []string{"pkg:deb/debian/tzdata@2024a?arch=all"}},
		"apk": {map[string]string{
			"etc/os-release": "ID=alpine\nVERSION_ID=3.20.1\n", "lib/apk/db/installed": "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld.so\na:0:0:755\n\nP:busybox\nV:1.36\nA:x86_64\nL:GPL-2.0-only\n\n",
		}, []string{"pkg:apk/alpine/busybox@1.36?arch=x86_64&distro=alpine-3.20.1", "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.1&upstream=musl"}},
		"npm": {map[string]string{
			"app/package.json":                                  `{"name":"app","version":"0"}`,
			"app/node_modules/left-pad/package.json":            `{"name":"left-pad","version":"1.3.0","license":"WTFPL"}`,
			"app/node_modules/@types/node/package.json":         `{"name":"@types/node","version":"20.1.0","license":{"type":"MIT"}}`,
			"app/node_modules/left-pad/lib/sub/package.json":    `{"name":"no","version":"1"}`,
			"app/node_modules/a/node_modules/b/package.json":    `{"name":"b","version":"2.0.0"}`,
			"app/node_modules/left-pad/test/data/x/package.txt": "",
		}, []string{"pkg:npm/%40types/node@20.1.0", "pkg:npm/b@2.0.0", "pkg:npm/left-pad@1.3.0"}},
		"python": {map[string]string{
			"usr/lib/python3/dist-packages/six-1.16.0.egg-info":                   "Metadata-Version: 1.2\nName: six\nVersion: 1.16.0\nLicense: MIT\n",
			"usr/lib/python3/dist-packages/wheel-0.38.4.egg-info/PKG-INFO":        "Name: wheel\nVersion: 0.38.4\n\nVersion: 7\n",
			"venv/lib/python3.11/site-packages/Typing_Ext-4.0.dist-info/METADATA": "Name: Typing_Ext\r\nVersion: 4.0\r\n\r\ntext\r\n",
		}, []string{"pkg:pypi/six@1.16.0", "pkg:pypi/typing-ext@4.0", "pkg:pypi/wheel@0.38.4"}},
	} {
		found, err := Scan(t.Context(), tree(t, c.files))
		if err != nil {
			t.Fatal(err)
		}
		if got := urls(found); !slices.Equal(got, c.want) || len(found.Skipped) != 0 {
			t.Errorf("%s: found %q and skipped %q, want %q", name, got, found.Skipped, c.want)
		}
	}
}

func TestScanReadsGoPrograms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", "./hack/e2e/probe")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a program: %v\n%s", err, out)
	}
	program, err := exec.Command("cat", dir+"/probe").Output()
	if err != nil {
		t.Fatal(err)
	}
	found, err := Scan(t.Context(), tree(t, map[string]string{
		"usr/bin/probe": string(program), "usr/bin/script": "#!/bin/sh\n" + strings.Repeat("#", 2000), "usr/bin/broken": string(program[:5000]),
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := urls(found)
	for _, want := range []string{"pkg:golang/stdlib@", "pkg:golang/github.com/slipwaybuild/slipway", "pkg:golang/golang.org/x/sys@"} {
		if !slices.ContainsFunc(got, func(u string) bool { return strings.HasPrefix(u, want) }) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
	for _, p := range found.Packages {
		if p.Found != "/usr/bin/probe" {
			t.Errorf("%s was found in %s", p.URL, p.Found)
		}
	}
}

func TestScanPassesOverNonsense(t *testing.T) {
	t.Parallel()
	found, err := Scan(t.Context(), tree(t, map[string]string{
		"node_modules/x/package.json": "{", "a.dist-info/METADATA": "no\n", "lib/apk/db/installed": "nothing", "var/lib/dpkg/status": "nothing",
		"node_modules/y/package.json": `{"name":"y","version":"1"}`,
	}))
	if err != nil || len(found.Skipped) != 4 || len(found.Packages) != 1 {
		t.Errorf("found %v, skipped %q: %v", urls(found), found.Skipped, err)
	}
	b, err := found.SPDX(About{Name: "n", Tool: "t", Created: time.Unix(0, 0)})
	if err != nil || !strings.Contains(string(b), "Not understood: /a.dist-info/METADATA: metadata without name or version") {
		t.Errorf("%v: %s", err, b)
	}
}

func TestSPDXIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	found, err := Scan(t.Context(), tree(t, map[string]string{"var/lib/dpkg/status": status, "a/six.egg-info": "Name: six\nVersion: 1\nLicense: MIT OR Apache-2.0\n"}))
	if err != nil {
		t.Fatal(err)
	}
	about := About{Name: "linux/amd64", Tool: "slipway-test", Created: time.Unix(1700000000, 0)}
	one, err := found.SPDX(about)
	if err != nil {
		t.Fatal(err)
	}
	two, err := found.SPDX(about)
	if err != nil || string(one) != string(two) {
		t.Errorf("two documents of the same differ (%v)", err)
	}
	var d document
	if err := json.Unmarshal(one, &d); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{documentID: true}
	for _, p := range d.Packages {
		if ids[p.ID] {
			t.Errorf("the id %s is there twice", p.ID)
		}
		ids[p.ID] = true
	}
	for _, r := range d.Relationships {
		if !ids[r.From] || !ids[r.To] {
			t.Errorf("a relationship of what is not there: %+v", r)
		}
	}
	if len(d.Packages) != 4 || d.Creation.Created != "2023-11-14T22:13:20Z" || !strings.Contains(string(one), `"licenseDeclared":"MIT OR Apache-2.0"`) ||
		!strings.Contains(string(one), `"supplier":"Person: Santiago Vila (sanvila@debian.org)"`) {
		t.Errorf("the document: %s", one)
	}
}

func TestLicenseExpressions(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"MIT": "MIT", "(MIT OR Apache-2.0)": "(MIT OR Apache-2.0)", "GPL-2.0-only WITH Linux-syscall-note": "GPL-2.0-only WITH Linux-syscall-note",
		"BSD": "", "MIT Apache-2.0": "", "": "", "UNLICENSED": "", "MIT OR": "", "((MIT)": "",
	} {
		if got := expression(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzDatabases(f *testing.F) {
	f.Add([]byte(status))
	f.Add([]byte("P:musl\nV:1\n\n"))
	f.Add([]byte(`{"name":"a","version":"1"}`))
	f.Add([]byte("Name: a\nVersion: 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var all []Package
		d := parseRelease(b)
		for _, parse := range []func([]byte) ([]Package, error){d.dpkg, d.apk} {
			list, _ := parse(b)
			all = append(all, list...)
		}
		for _, parse := range []func([]byte) (Package, error){npm, python} {
			if p, err := parse(b); err == nil {
				all = append(all, p)
			}
		}
		for _, p := range all {
			if p.Name == "" || !strings.HasPrefix(p.URL, "pkg:") {
				t.Errorf("a package without name: %+v", p)
			}
		}
		found := Found{Packages: all}
		doc, err := found.SPDX(About{})
		if err != nil || !json.Valid(doc) {
			t.Errorf("the document: %v", err)
		}
	})
}
