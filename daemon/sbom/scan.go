// Package sbom is the scanner that is built in: it lists the software in a tree as an SPDX 2.3 document without running anything. It
// knows the data bases of dpkg and apk, what Go binaries say of themselves, and installed npm and Python packages.
//
// All that it reads is foreign: a file that makes no sense is passed over, with a note in the document, and every file has a limit.
package sbom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	packageurl "github.com/package-url/packageurl-go"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// Limits on what is read, in bytes and packages.
const (
	maxDatabase = 256 << 20
	maxManifest = 4 << 20
	maxPackages = 500_000
)

// Package is one piece of software.
type Package struct {
	Name, Version string
	// URL is its package URL.
	URL string
	// License is an SPDX expression, or empty if there is none that can be trusted to be one.
	License string
	// Supplier is who maintains it, as its own data say; may be empty.
	Supplier string
	// Found is the path of the file that told of it.
	Found string
}

// Found is what a scan finds.
type Found struct {
	// Packages are sorted by URL, each once per place.
	Packages []Package
	// Skipped says which files made no sense, and why.
	Skipped []string
}

// errTooMany ends a scan.
var errTooMany = fmt.Errorf("more than %d packages", maxPackages)

// Scan lists the software in a tree.
func Scan(ctx context.Context, tree fstree.Tree) (*Found, error) {
	s := &scan{ctx: ctx, tree: tree, distro: readDistro(ctx, tree)}
	err := fstree.Walk(ctx, tree, "", func(e fstree.Entry) error {
		if !e.IsRegular() {
			return nil
		}
		if err := s.file(e); err != nil {
			if ctx.Err() != nil || errors.Is(err, errTooMany) {
				return err
			}
			s.found.Skipped = append(s.found.Skipped, fmt.Sprintf("/%s: %v", e.Path, err))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("scan for software: %w", err)
	}
	slices.SortFunc(s.found.Packages, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.URL, b.URL), cmp.Compare(a.Found, b.Found))
	})
	s.found.Packages = slices.Compact(s.found.Packages)
	return &s.found, nil
}

type scan struct {
	ctx    context.Context
	tree   fstree.Tree
	distro distro
	found  Found
}

// file looks at one file if its name or mode is that of something known.
func (s *scan) file(e fstree.Entry) error {
	dir, name := path.Split(e.Path)
	dir = strings.TrimSuffix(dir, "/")
	switch {
	case e.Path == "var/lib/dpkg/status", dir == "var/lib/dpkg/status.d" && !strings.HasSuffix(name, ".md5sums"):
		return s.database(e, s.distro.dpkg)
	case e.Path == "lib/apk/db/installed", e.Path == "usr/lib/apk/db/installed":
		return s.database(e, s.distro.apk)
	case name == "package.json" && inNodeModules(dir):
		return s.manifest(e, npm)
	case name == "METADATA" && strings.HasSuffix(dir, ".dist-info"),
		name == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info"), strings.HasSuffix(name, ".egg-info"):
		return s.manifest(e, python)
	case e.Mode&0o111 != 0 && e.Size > 1024:
		return s.binary(e)
	}
	return nil
}

func (s *scan) database(e fstree.Entry, parse func([]byte) ([]Package, error)) error {
	b, err := fstree.ReadFile(s.ctx, s.tree, e.Path, maxDatabase)
	if err != nil {
		return err
	}
	list, err := parse(b)
	return errors.Join(s.add(e, list...), err)
}

func (s *scan) manifest(e fstree.Entry, parse func([]byte) (Package, error)) error {
	b, err := fstree.ReadFile(s.ctx, s.tree, e.Path, maxManifest)
	if err != nil {
		return err
	}
	p, err := parse(b)
	if err != nil {
		return err
	}
	return s.add(e, p)
}

func (s *scan) add(e fstree.Entry, list ...Package) error {
	for _, p := range list {
		if len(s.found.Packages) >= maxPackages {
			return errTooMany
		}
		p.Found = "/" + e.Path
		s.found.Packages = append(s.found.Packages, p)
	}
	return nil
}

// distro is the distribution that a tree is of.
type distro struct{ id, version string }

func readDistro(ctx context.Context, tree fstree.Tree) (d distro) {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		p, err := fstree.Resolve(ctx, tree, name, true)
		if err != nil {
			continue
		}
		b, err := fstree.ReadFile(ctx, tree, p, maxManifest)
		if errors.Is(err, fs.ErrNotExist) || err != nil {
			continue
		}
		return parseRelease(b)
	}
	return d
}

// parseRelease reads os-release(5).
func parseRelease(b []byte) (d distro) {
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		v = strings.Trim(v, `"'`)
		switch k {
		case "ID":
			d.id = v
		case "VERSION_ID":
			d.version = v
		}
	}
	return d
}

// url names a package of the distribution.
func (d distro) url(kind, namespace, name, version, arch, source string) string {
	q := packageurl.Qualifiers{}
	add := func(k, v string) {
		if v != "" {
			q = append(q, packageurl.Qualifier{Key: k, Value: v})
		}
	}
	add("arch", arch)
	if d.id != "" && d.version != "" {
		add("distro", d.id+"-"+d.version)
	}
	add("upstream", source)
	return packageurl.NewPackageURL(kind, cmp.Or(d.id, namespace), name, version, q, "").ToString()
}
