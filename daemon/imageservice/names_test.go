package imageservice_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/daemon/imageservice"
	"github.com/slipwaybuild/slipway/solver/layers/images"
)

func at(hour int, labels ...string) ocispecs.Image {
	t := time.Date(2020, 1, 1, hour, 0, 0, 0, time.UTC)
	c := ocispecs.Image{Created: &t, Config: ocispecs.ImageConfig{Labels: map[string]string{}}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		c.Config.Labels[k] = v
	}
	c.History = []ocispecs.History{{CreatedBy: "first", Created: &t}, {CreatedBy: "second", EmptyLayer: true}}
	return c
}

func TestFindByNameIDAndConfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.build("a", at(1), "docker.io/library/busybox:latest", "example.com/x/y:1")
	hex := b.target.Digest.Encoded()
	for _, ref := range []string{
		"busybox", "busybox:latest", "library/busybox", "docker.io/busybox", "example.com/x/y:1", hex, hex[:12], "sha256:" + hex, "sha256:" + hex[:7],
		b.config.Digest.String(), b.config.Digest.Encoded()[:12], "busybox@" + b.id(),
	} {
		if d, err := w.Inspect(t.Context(), ref); err != nil || d.ID != b.target.Digest {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for ref, want := range map[string]string{
		"nosuch": "No such image: nosuch:latest", "x/y:2": "No such image: x/y:2", "0123456789ab": "No such image: 0123456789ab:latest",
		"example.com/other@" + b.id(): "No such image: example.com/other@" + b.id(),
	} {
		if _, err := w.Inspect(t.Context(), ref); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != want {
			t.Errorf("%s: %v, want %q", ref, err, want)
		}
	}
	if _, err := w.Inspect(t.Context(), "Bad/REF"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
}

func TestAmbiguousBeginningIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := map[byte]bool{}
	for i := range 40 { // more than there are digits
		d := w.build(fmt.Sprint(i), at(1)).target.Digest.Encoded()
		if first[d[0]] {
			if _, err := w.Inspect(t.Context(), "sha256:"+d[:1]); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "ambiguous") {
				t.Errorf("%v", err)
			}
			return
		}
		first[d[0]] = true
	}
	t.Error("no two images with the same first digit")
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.build("1", at(1, "k=v"), "docker.io/library/one:1")
	w.build("2", at(2, "k=w", "l=x"), "docker.io/library/two:1", "docker.io/library/two:2")
	w.build("3", at(3))
	yes, no := true, false
	for want, o := range map[string]imageservice.ListOptions{
		"- two:1,two:2 one:1": {},
		"-":                   {Dangling: &yes},
		"two:1,two:2 one:1":   {Dangling: &no},
		"one:1":               {Labels: []string{"k=v"}},
		"two:1,two:2":         {Labels: []string{"k", "l=x"}},
		"- one:1":             {NotLabels: []string{"l"}},
		"two:2":               {References: []string{"*:2"}},
		"two:1 one:1":         {References: []string{"one", "two:1"}},
		" one:1":              {Before: "two:1"},
		" -":                  {Since: "two:2"},
		"  one:1":             {Until: *at(2).Created},
	} {
		list, err := w.List(t.Context(), o)
		var got []string
		for _, s := range list {
			name := strings.Join(s.Tags, ",")
			if name == "" {
				name = "-"
			}
			got = append(got, name)
		}
		if err != nil || strings.Join(got, " ") != strings.TrimSpace(want) {
			t.Errorf("%+v: %v %v, want %s", o, got, err, want)
		}
	}
	if _, err := w.List(t.Context(), imageservice.ListOptions{References: []string{"["}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
	if _, err := w.List(t.Context(), imageservice.ListOptions{Before: "nosuch"}); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}

func TestHistoryAndSizes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.build("a", at(1), "docker.io/library/a:1")
	other := at(1)
	other.Author = "someone else"
	w.build("a", other, "docker.io/library/b:1") // the same layer
	steps, err := w.History(t.Context(), "a:1")
	if err != nil || len(steps) != 2 || steps[0].CreatedBy != "second" || steps[0].ID != b.target.Digest || !slices.Equal(steps[0].Tags, []string{"a:1"}) ||
		steps[1].Size != int64(len(b.layer)) || steps[0].Size != 0 || steps[1].ID != "" {
		t.Errorf("%+v %v", steps, err)
	}
	list, total, err := w.DiskUsage(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	if shared := int64(len(b.layer)); list[0].Shared != shared || total != list[0].Size+list[1].Size-shared {
		t.Errorf("%+v: %d", list, total)
	}
}

func TestTagAndRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, l := w.hub.Listen(time.Time{})
	defer l.Close()
	b := w.build("a", at(1), "docker.io/library/a:1")
	hex := b.target.Digest.Encoded()
	remove := func(ref string, force bool, want ...imageservice.Removed) {
		t.Helper()
		if got, err := w.Remove(t.Context(), ref, imageservice.RemoveOptions{Force: force}); err != nil || !slices.Equal(got, want) {
			t.Errorf("remove %s: %v %v, want %v", ref, got, err, want)
		}
	}
	tag := func(ref, repo, tag string) {
		t.Helper()
		if err := w.Tag(t.Context(), ref, repo, tag); err != nil {
			t.Error(err)
		}
	}
	tag("a:1", "docker.io/library/a", "2")
	tag(hex[:12], "other", "")
	remove("a:2", false, imageservice.Removed{Untagged: "a:2"})
	if _, err := w.Remove(t.Context(), hex[:12], imageservice.RemoveOptions{}); !errdefs.IsConflict(err) ||
		err.Error() != "conflict: unable to delete "+hex[:12]+" (must be forced) - image is referenced in multiple repositories" {
		t.Errorf("%v", err)
	}
	remove(hex, true, imageservice.Removed{Untagged: "a:1"}, imageservice.Removed{Untagged: "other:latest"}, imageservice.Removed{Deleted: b.id()})
	if _, err := w.Remove(t.Context(), "a:1", imageservice.RemoveOptions{Force: true}); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
	if _, err := w.images.Content().Info(t.Context(), b.config.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("the config is still there: %v", err)
	}
	want := []string{"tag a:2", "tag other:latest", "untag a:2", "untag a:1", "untag other:latest", "delete " + b.id()}
	if got := heard(l); !slices.Equal(got, want) {
		t.Errorf("heard %q, want %q", got, want)
	}
	for _, name := range [][2]string{{"Bad/REF", ""}, {"x", "no tag"}, {"sha256", "1"}, {"x@" + b.id(), ""}} {
		if err := w.Tag(t.Context(), hex, name[0], name[1]); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", name, err)
		}
	}
}

// made says that the classic builder made an image of another.
func (w *world) made(child, of built) {
	w.t.Helper()
	info := content.Info{Digest: child.target.Digest, Labels: map[string]string{images.LabelParent: of.config.Digest.String()}}
	if _, err := w.images.Content().Update(w.t.Context(), info, "labels."+images.LabelParent); err != nil {
		w.t.Fatal(err)
	}
}

// line makes images of which each was made of the one before: base has a name, two steps have none, two ends have one each.
func (w *world) line() (base, first, second, end, other built) {
	base = w.build("base", at(1), "docker.io/library/base:1")
	first, second = w.build("1", at(2)), w.build("2", at(3))
	end, other = w.build("3", at(4), "docker.io/library/end:1"), w.build("4", at(5), "docker.io/library/other:1")
	w.made(first, base)
	w.made(second, first)
	w.made(end, second)
	w.made(other, first)
	return base, first, second, end, other
}

func TestParentsGoWithTheirLastChild(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base, first, second, end, other := w.line()
	remove := func(ref string, o imageservice.RemoveOptions, want ...imageservice.Removed) {
		t.Helper()
		if got, err := w.Remove(t.Context(), ref, o); err != nil || !slices.Equal(got, want) {
			t.Errorf("remove %s: %v %v, want %v", ref, got, err, want)
		}
	}
	for _, b := range []built{base, first, second} {
		if _, err := w.Remove(t.Context(), b.id(), imageservice.RemoveOptions{Force: true}); !errdefs.IsConflict(err) ||
			err.Error() != "conflict: unable to delete "+b.target.Digest.Encoded()[:12]+" (cannot be forced) - image has dependent child images" {
			t.Errorf("%v", err)
		}
	}
	// The name goes, the image stays for its children.
	remove("base:1", imageservice.RemoveOptions{}, imageservice.Removed{Untagged: "base:1"})
	remove("end:1", imageservice.RemoveOptions{}, imageservice.Removed{Untagged: "end:1"}, imageservice.Removed{Deleted: end.id()}, imageservice.Removed{Deleted: second.id()})
	remove(other.id(), imageservice.RemoveOptions{KeepParents: true}, imageservice.Removed{Untagged: "other:1"}, imageservice.Removed{Deleted: other.id()})
	remove(first.id(), imageservice.RemoveOptions{}, imageservice.Removed{Deleted: first.id()}, imageservice.Removed{Deleted: base.id()})
	if left, err := w.List(t.Context(), imageservice.ListOptions{Intermediate: true}); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}

func TestNamedParentStaysWhenItsChildrenGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base, _, _, _, _ := w.line()
	for _, ref := range []string{"end:1", "other:1"} {
		if _, err := w.Remove(t.Context(), ref, imageservice.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	if left, err := w.List(t.Context(), imageservice.ListOptions{Intermediate: true}); err != nil || len(left) != 1 || left[0].ID != base.target.Digest {
		t.Errorf("%v %v", left, err)
	}
}

func TestPruneSparesParents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base, first, _, end, other := w.line()
	// Only end, and the step that was made for it alone, is old enough.
	list, _, err := w.Prune(t.Context(), imageservice.PruneOptions{All: true, Until: *at(5).Created})
	if err != nil || len(list) == 0 || slices.Contains(list, imageservice.Removed{Deleted: base.id()}) || slices.Contains(list, imageservice.Removed{Deleted: first.id()}) ||
		!slices.Contains(list, imageservice.Removed{Untagged: "base:1"}) || !slices.Contains(list, imageservice.Removed{Deleted: end.id()}) {
		t.Errorf("%v %v", list, err)
	}
	if list, _, err = w.Prune(t.Context(), imageservice.PruneOptions{All: true}); err != nil || !slices.Contains(list, imageservice.Removed{Deleted: base.id()}) ||
		!slices.Contains(list, imageservice.Removed{Deleted: other.id()}) {
		t.Errorf("%v %v", list, err)
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.build("1", at(1, "keep=1"), "docker.io/library/one:1")
	gone := w.build("2", at(2))
	w.build("3", at(3, "keep=1"))
	list, freed, err := w.Prune(t.Context(), imageservice.PruneOptions{NotLabels: []string{"keep"}})
	if err != nil || !slices.Equal(list, []imageservice.Removed{{Deleted: gone.id()}}) || freed < gone.target.Size+gone.config.Size {
		t.Errorf("%v %d %v", list, freed, err)
	}
	if list, _, err = w.Prune(t.Context(), imageservice.PruneOptions{All: true, Until: *at(2).Created}); err != nil || len(list) != 2 || list[0].Untagged != "one:1" {
		t.Errorf("%v %v", list, err)
	}
	left, err := w.List(t.Context(), imageservice.ListOptions{})
	if err != nil || len(left) != 1 || len(left[0].Tags) != 0 {
		t.Errorf("%v %v", left, err)
	}
}
