package ops

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/client/llb"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/executor/fake"
	"github.com/slipwaybuild/slipway/solver/guard"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
	"golang.org/x/sys/unix"
)

const secretValue = "the-Secret/value+1"

func known(id, value string) *guard.Matcher {
	v := &guard.Values{}
	v.Learn(id, []byte(value))
	return v.Matcher()
}

func gzipped(t testing.TB, text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zstandard(t testing.TB, text string) string {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return string(w.EncodeAll([]byte(text), nil))
}

func TestSearchLayer(t *testing.T) {
	y := newYard(t, nil)
	m := known("tok", secretValue)
	for name, test := range map[string]struct {
		file  file
		where string
	}{
		"content":             {file{path: "d/f", data: "x" + secretValue + "y"}, "the content of /d/f"},
		"end of a buffer":     {file{path: "f", data: strings.Repeat("x", searchBuffer-5) + secretValue}, "the content of /f"},
		"name":                {file{path: "d/" + strings.ReplaceAll(secretValue, "/", "%2F")}, "the name of /d/***"},
		"base64url name":      {file{path: "d/dGhlLVNlY3JldC92YWx1ZSsx", data: "x"}, "the name of /d/***"},
		"target of a symlink": {file{path: "l", mode: unix.S_IFLNK | 0o777, data: secretValue}, "the target of the link /l"},
		"attribute":           {file{path: "f", data: "x", x: map[string]string{"user.a": secretValue}}, "an extended attribute of /f"},
		"gzip":                {file{path: "f", data: gzipped(t, strings.Repeat("y", 1<<20)+secretValue)}, "the content of /f"},
		"zstd":                {file{path: "f", data: zstandard(t, "x"+secretValue)}, "the content of /f"},
		"no gzip":             {file{path: "f", data: "\x1f\x8b\x08 nothing of the kind"}, ""},
		"cut gzip":            {file{path: "f", data: gzipped(t, strings.Repeat("y", 1<<20))[:500]}, ""},
		"beginning":           {file{path: "f", data: secretValue[:len(secretValue)-1]}, ""},
		"fifo":                {file{path: "f", mode: unix.S_IFIFO | 0o600}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ref := y.layer(test.file)
			defer func() { _ = ref.Release() }()
			for range 2 { // what was found once is not forgotten
				leak, err := y.f.SearchLayer(t.Context(), ref, 0, m, nil)
				if err != nil {
					t.Fatal(err)
				}
				if test.where == "" && leak != nil || test.where != "" && (leak == nil || leak.ID != "tok" || leak.Where != test.where) {
					t.Errorf("found %+v, want %q", leak, test.where)
				}
			}
			leaks := &Leaks{}
			leaks.Allow("tok")
			if leak, err := y.f.SearchLayer(t.Context(), ref, 0, m, leaks); leak != nil || err != nil {
				t.Errorf("what may pass: %v, %v", leak, err)
			}
			if leak, err := y.f.SearchLayer(t.Context(), ref, 0, nil, nil); leak != nil || err != nil {
				t.Errorf("without values: %v, %v", leak, err)
			}
		})
	}
}

func TestSearchedIsOfTheValues(t *testing.T) {
	y := newYard(t, nil)
	ref := y.layer(file{path: "f", data: "other-secret-value"})
	defer func() { _ = ref.Release() }()
	if leak, err := y.f.SearchLayer(t.Context(), ref, 0, known("tok", secretValue), nil); leak != nil || err != nil {
		t.Fatalf("%v, %v", leak, err)
	}
	if leak, err := y.f.SearchLayer(t.Context(), ref, 0, known("tok", "other-secret-value"), nil); leak == nil || err != nil {
		t.Errorf("another value under the same id: %v, %v", leak, err)
	}
}

// secretBuild is a build whose client has the secret "tok".
type secretBuild struct {
	*solver.Build
	loader *Loader
	story  *progress.Memory
	values *guard.Values
}

func (e *engine) secretBuild(o LoadOptions, value string) *secretBuild {
	e.t.Helper()
	s := &secretBuild{story: &progress.Memory{}, values: &guard.Values{}, loader: e.f.NewLoader(o)}
	g := sessiontest.Pair(e.t, secrets.FromStore(secrets.Map{"tok": []byte(value)})).Witnessed(s.values)
	s.Build = e.solver.NewBuild(solver.BuildOptions{Lender: g, Sink: s.story})
	e.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			e.t.Errorf("close build: %v", err)
		}
	})
	return s
}

func (s *secretBuild) result(e *engine, st llb.State) error {
	g, err := s.loader.Load(e.t.Context(), define(e.t, st))
	if err != nil {
		return err
	}
	r, err := s.Result(e.t.Context(), g.Edge())
	if err == nil {
		e.release(r)
	}
	return err
}

var _ session.Witness = (*guard.Values)(nil)

// tell is a step that prints what it is given, and writes it to a file.
func tell(path string) fake.Func {
	return func(ctx context.Context, c *fake.Call) error {
		v, err := c.Services.Secret(ctx, "tok")
		if err != nil {
			return err
		}
		for _, part := range []string{"token: ", string(v[:5]), string(v[5:]), "\n"} {
			if _, err := c.IO.Stdout.Write([]byte(part)); err != nil {
				return err
			}
		}
		if path == "" {
			return fmt.Errorf("cannot use %s", v)
		}
		return c.Write(fake.File{Entry: fstree.Entry{Path: path, Mode: unix.S_IFREG | 0o644, ModTime: time.Now()}, Data: v})
	}
}

func TestStepThatWritesItsSecret(t *testing.T) {
	e := newEngine(t)
	e.src.set("base", file{path: "f"})
	st := mem("base").Run(llb.Args([]string{"tell"}), llb.AddSecret("/s", llb.SecretID("tok"))).Root()
	e.step = tell("/etc/leak")
	used := layerIDs(t, e.store)
	for range 2 {
		b := e.secretBuild(LoadOptions{Leaks: &Leaks{}}, secretValue)
		err := b.result(e, st)
		var leak *LeakError
		var failed *solver.VertexError
		if !errors.As(err, &leak) || leak.ID != "tok" || leak.Where != "the content of /etc/leak" || !errors.As(err, &failed) || strings.Contains(err.Error(), secretValue) {
			t.Fatalf("error: %v", err)
		}
		if b.values.Matcher().Find([]byte(secretValue), nil) != "tok" {
			t.Error("the build did not hear of the secret")
		}
		var log bytes.Buffer
		for _, ev := range b.story.Events() {
			if ev.Log != nil {
				log.Write(ev.Log.Data)
			}
		}
		if log.String() != "token: ***\n" {
			t.Errorf("log: %q", log.String())
		}
	}
	e.wantRan("tell", "tell")
	for id := range layerIDs(t, e.store) {
		if !used[id] && strings.HasPrefix(id, "dir:") {
			t.Errorf("layer %s is left", id)
		}
	}

	allowing := func() *Leaks {
		l := &Leaks{}
		l.Allow("tok", "other")
		return l
	}
	for _, leaks := range []*Leaks{allowing(), allowing(), {WarnOnly: true}} {
		b := e.secretBuild(LoadOptions{Leaks: leaks}, secretValue)
		if err := b.result(e, st); err != nil {
			t.Fatalf("allowed: %v", err)
		}
	}
	e.wantRan("tell")
	if err := e.secretBuild(LoadOptions{Leaks: &Leaks{}}, secretValue).result(e, st); err == nil {
		t.Error("a build that does not allow it got what one made that did")
	}
}

func layerIDs(t *testing.T, s *layers.Store) map[string]bool {
	t.Helper()
	list, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, u := range list {
		ids[u.ID] = true
	}
	return ids
}

func TestErrorOfAStepTellsNoSecret(t *testing.T) {
	e := newEngine(t)
	e.src.set("base", file{path: "f"})
	e.step = tell("")
	err := e.secretBuild(LoadOptions{}, secretValue).result(e, mem("base").Run(llb.Args([]string{"tell"}), llb.AddSecret("/s", llb.SecretID("tok"))).Root())
	if err == nil || strings.Contains(err.Error(), secretValue) || !strings.Contains(err.Error(), "cannot use ***") {
		t.Errorf("error: %v", err)
	}
}

func TestShortSecretIsSaidOnce(t *testing.T) {
	e := newEngine(t)
	e.src.set("base", file{path: "f"})
	e.step = tell("/leak")
	b := e.secretBuild(LoadOptions{Leaks: &Leaks{}}, "seven77")
	run := func(arg string) llb.State {
		return mem("base").Run(llb.Args([]string{"tell", arg}), llb.AddSecret("/s", llb.SecretID("tok"))).Root()
	}
	if err := errors.Join(b.result(e, run("1")), b.result(e, run("2"))); err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, ev := range b.story.Events() {
		if ev.Warning != nil && strings.Contains(string(ev.Warning.Short), `secret "tok" has 7 bytes`) {
			said++
		}
		if ev.Log != nil && strings.Contains(string(ev.Log.Data), "seven77") {
			t.Errorf("log: %q", ev.Log.Data)
		}
	}
	if said != 1 {
		t.Errorf("said %d times", said)
	}
}

func TestFilesOpMakesAreSearched(t *testing.T) {
	e := newEngine(t)
	e.src.set("ctx", file{path: "f", data: "x=" + secretValue}, file{path: "g", data: "harmless"})
	b := e.secretBuild(LoadOptions{Leaks: &Leaks{}}, secretValue)
	b.values.Learn("tok", []byte(secretValue))
	if err := b.result(e, llb.Scratch().File(llb.Copy(mem("ctx"), "/g", "/g"))); err != nil {
		t.Fatal(err)
	}
	err := b.result(e, llb.Scratch().File(llb.Copy(mem("ctx"), "/f", "/copied")))
	var leak *LeakError
	if !errors.As(err, &leak) || leak.Where != "the content of /copied" {
		t.Errorf("error: %v", err)
	}
	// Who does not have the secret has no reason to fail.
	if _, err := e.build(llb.Scratch().File(llb.Copy(mem("ctx"), "/f", "/copied")), LoadOptions{}); err != nil {
		t.Errorf("another build: %v", err)
	}
}

// BenchmarkSearchLayer is what the guard adds to a step that writes 5,000 files of 6 KB and one of 64 MB.
func BenchmarkSearchLayer(b *testing.B) {
	y := newYard(b, nil)
	r := rand.NewChaCha8([32]byte{})
	text := func(n int) string {
		p := make([]byte, n)
		_, _ = r.Read(p)
		return string(p)
	}
	files := []file{{path: "d/"}, {path: "large", data: text(64 << 20)}}
	for i := range 5000 {
		files = append(files, file{path: fmt.Sprintf("d/%d", i), data: text(6 << 10)})
	}
	ref := y.layer(files...)
	defer func() { _ = ref.Release() }()
	b.SetBytes(64<<20 + 5000*6<<10)
	n := 0
	for b.Loop() {
		n++ // another value each time, or it would be remembered
		if leak, err := y.f.SearchLayer(b.Context(), ref, 0, known("tok", fmt.Sprintf("%s%d", secretValue, n)), nil); leak != nil || err != nil {
			b.Fatal(leak, err)
		}
	}
}
