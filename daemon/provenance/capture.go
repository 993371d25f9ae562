package provenance

import (
	"cmp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver/ops"
)

// Image is an image that was used.
type Image struct {
	// Ref is its name as people write it.
	Ref      string
	Platform *ocispecs.Platform
	Digest   digest.Digest
	// Layout says that it came out of a client's OCI layout.
	Layout bool
	// Blob says that only one blob of the repository was used, that of the digest.
	Blob bool
}

// Git is a commit that was used; URL ends with "#ref" if a ref was asked for.
type Git struct{ URL, Commit string }

// File is a file that was used.
type File struct {
	URL    string
	Digest digest.Digest
}

// Capture is what the result for one platform was made of. The zero value is ready.
type Capture struct {
	// Request is what was asked for; nil if it was a definition.
	Request *Request
	// Root is what the client asked for, if that led to Request by way of another frontend; nil otherwise.
	Root *Request
	// Platform is that of the result.
	Platform ocispecs.Platform

	Images       []Image
	Gits         []Git
	Files        []File
	Locals       []string
	Secrets, SSH []ops.GrantUse
	// Network says that a step had a network.
	Network bool
	// Incomplete says that not everything that was used can be named.
	Incomplete bool
}

// Use adds what a graph used.
func (c *Capture) Use(u ops.Use) {
	for _, s := range u.Sources {
		c.addSource(s)
	}
	c.Secrets, c.SSH = mergeGrants(c.Secrets, u.Secrets), mergeGrants(c.SSH, u.SSH)
	c.Network = c.Network || u.Network
	c.Incomplete = c.Incomplete || u.Nested
}

func mergeGrants(a, b []ops.GrantUse) []ops.GrantUse {
	for _, g := range b {
		i := slices.IndexFunc(a, func(o ops.GrantUse) bool { return o.ID == g.ID })
		if i < 0 {
			a = append(a, g)
			continue
		}
		a[i].Optional = a[i].Optional && g.Optional
	}
	slices.SortFunc(a, func(a, b ops.GrantUse) int { return cmp.Compare(a.ID, b.ID) })
	return a
}

func (c *Capture) addSource(s ops.SourceUse) {
	scheme, rest, _ := strings.Cut(s.Identifier, "://")
	switch scheme {
	case "docker-image", "oci-layout":
		p := s.Platform
		c.AddImage(Image{Ref: rest, Platform: &p, Digest: digest.Digest(s.Pin), Layout: scheme == "oci-layout"})
	case "docker-image+blob", "oci-layout+blob":
		c.AddImage(Image{Ref: rest, Digest: digest.Digest(s.Pin), Layout: scheme == "oci-layout+blob", Blob: true})
		c.Incomplete = c.Incomplete || s.Pin == ""
	case "git":
		c.addGit(rest, s)
	case "http", "https":
		f := File{URL: redact(s.Identifier), Digest: digest.Digest(s.Pin)}
		if !slices.ContainsFunc(c.Files, func(o File) bool { return o.URL == f.URL }) {
			c.Files = append(c.Files, f)
		}
		c.Incomplete = c.Incomplete || s.Pin == ""
	case "local":
		if !slices.Contains(c.Locals, rest) {
			c.Locals = append(c.Locals, rest)
		}
	default:
		c.Incomplete = true
	}
}

// addGit names a commit by the remote, as the client wrote it, and the ref: a directory in it is no part of the name.
func (c *Capture) addGit(rest string, s ops.SourceUse) {
	remote, fragment, _ := strings.Cut(rest, "#")
	if full := s.Attrs[pb.AttrFullRemoteURL]; full != "" {
		remote, _, _ = strings.Cut(full, "#")
	}
	if ref, _, _ := strings.Cut(fragment, ":"); ref != "" {
		remote += "#" + ref
	}
	g := Git{URL: redact(remote), Commit: s.Pin}
	if !slices.Contains(c.Gits, g) {
		c.Gits = append(c.Gits, g)
	}
	c.Incomplete = c.Incomplete || s.Pin == ""
}

// AddImage adds an image unless it is there for the platform.
func (c *Capture) AddImage(i Image) {
	same := func(o Image) bool {
		return o.Ref == i.Ref && o.Layout == i.Layout && o.Blob == i.Blob && platformOf(o.Platform) == platformOf(i.Platform)
	}
	if !slices.ContainsFunc(c.Images, same) {
		c.Images = append(c.Images, i)
	}
}

func platformOf(p *ocispecs.Platform) string {
	if p == nil {
		return ""
	}
	return platforms.FormatAll(platforms.Normalize(*p))
}

// settle sorts, and drops images by digest of which the tag that was asked for is there: frontends resolve a tag and use the
// digest it gave.
func (c *Capture) settle() {
	tagged := map[string]bool{}
	for _, i := range c.Images {
		if name, pinned := nameTag(i.Ref); !pinned && !i.Blob {
			tagged[name] = true
		}
	}
	c.Images = slices.DeleteFunc(c.Images, func(i Image) bool {
		name, pinned := nameTag(i.Ref)
		return pinned && tagged[name] && !i.Blob
	})
	slices.SortFunc(c.Images, func(a, b Image) int {
		return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(platformOf(a.Platform), platformOf(b.Platform)))
	})
	slices.SortFunc(c.Gits, func(a, b Git) int { return cmp.Compare(a.URL, b.URL) })
	slices.SortFunc(c.Files, func(a, b File) int { return cmp.Compare(a.URL, b.URL) })
	slices.Sort(c.Locals)
}

// nameTag is a reference's repository and tag, and whether a digest stands behind them.
func nameTag(ref string) (string, bool) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref, false
	}
	_, pinned := named.(reference.Digested)
	tag := "latest"
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
	}
	return named.Name() + ":" + tag, pinned
}
