package sbom

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"runtime/debug"
	"strings"

	packageurl "github.com/package-url/packageurl-go"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// magics begin the programs that Go makes.
var magics = [][]byte{
	{0x7f, 'E', 'L', 'F'}, {'M', 'Z'}, {0xfe, 0xed, 0xfa, 0xce}, {0xfe, 0xed, 0xfa, 0xcf}, {0xce, 0xfa, 0xed, 0xfe}, {0xcf, 0xfa, 0xed, 0xfe},
}

// binary reads what a Go program was built of. Other programs are nothing to speak of.
func (s *scan) binary(e fstree.Entry) (err error) {
	c, err := s.tree.Open(s.ctx, e.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	head := make([]byte, 4)
	if _, err := c.ReadAt(head, 0); err != nil {
		return err
	}
	program := false
	for _, m := range magics {
		program = program || bytes.HasPrefix(head, m)
	}
	if !program {
		return nil
	}
	info, err := goInfo(c)
	if err != nil {
		return nil //nolint:nilerr // a program that Go did not make, or stripped of what it said
	}
	return s.add(e, goPackages(info)...)
}

// goInfo reads a program, and survives one that was made to break its reader.
func goInfo(r io.ReaderAt) (info *debug.BuildInfo, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read program: %v", p)
		}
	}()
	return buildinfo.Read(r)
}

func goPackages(info *debug.BuildInfo) []Package {
	list := []Package{goPackage("stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
	if info.Main.Path != "" {
		list = append(list, goPackage(info.Main.Path, info.Main.Version))
	}
	for _, m := range info.Deps {
		if m == nil {
			continue
		}
		if m.Replace != nil && m.Replace.Path != "" {
			m = m.Replace
		}
		list = append(list, goPackage(m.Path, m.Version))
	}
	return list
}

func goPackage(module, version string) Package {
	if version == "(devel)" {
		version = ""
	}
	dir, name := path.Split(module)
	return Package{
		Name: module, Version: version,
		URL: packageurl.NewPackageURL(packageurl.TypeGolang, strings.TrimSuffix(dir, "/"), name, version, nil, "").ToString(),
	}
}

// inNodeModules tells whether a directory is that of an installed package: node_modules/name or node_modules/@scope/name.
func inNodeModules(dir string) bool {
	parent, _ := path.Split(dir)
	parent = strings.TrimSuffix(parent, "/")
	if strings.HasPrefix(path.Base(parent), "@") {
		parent = path.Dir(parent)
	}
	return path.Base(parent) == "node_modules"
}

// npm reads a package.json.
func npm(b []byte) (Package, error) {
	var m struct {
		Name, Version string
		License       any
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return Package{}, fmt.Errorf("read package.json: %w", err)
	}
	if m.Name == "" || m.Version == "" {
		return Package{}, errors.New("package.json without name or version")
	}
	license, _ := m.License.(string)
	dir, name := path.Split(m.Name)
	return Package{
		Name: m.Name, Version: m.Version, License: expression(license),
		URL: packageurl.NewPackageURL(packageurl.TypeNPM, strings.TrimSuffix(dir, "/"), name, m.Version, nil, "").ToString(),
	}, nil
}

var pypiRuns = regexp.MustCompile(`[-_.]+`)

// python reads core metadata, as wheels and eggs have it.
func python(b []byte) (Package, error) {
	head, _, _ := strings.Cut(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n\n")
	f := fields(head)
	if f["name"] == "" || f["version"] == "" {
		return Package{}, errors.New("metadata without name or version")
	}
	license := f["license-expression"]
	if license == "" {
		license = f["license"]
	}
	name := strings.ToLower(pypiRuns.ReplaceAllString(f["name"], "-"))
	return Package{
		Name: f["name"], Version: f["version"], License: expression(license), Supplier: f["author-email"],
		URL: packageurl.NewPackageURL(packageurl.TypePyPi, "", name, f["version"], nil, "").ToString(),
	}, nil
}
