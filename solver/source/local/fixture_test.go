package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bkfilesync "github.com/moby/buildkit/session/filesync"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/session/sessiontest"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
	"github.com/slipwaybuild/slipway/solver/progress"
	"github.com/slipwaybuild/slipway/solver/source"
	"github.com/tonistiigi/fsutil"
)

// fixture is a source with its store, and a way for clients to reach it.
type fixture struct {
	t      testing.TB
	store  *layers.Store
	m      *session.Manager
	dial   session.Dialer
	source *Source
}

func newFixture(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t}
	var err error
	if f.store, err = layers.Open(t.Context(), layers.Options{Root: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	f.m = sessiontest.NewManager(t, session.ManagerOptions{Wait: 2 * time.Second})
	f.dial = sessiontest.HTTP(t, f.m)
	o := Options{Store: f.store, Sessions: f.m, Root: t.TempDir()}
	if change != nil {
		change(&o)
	}
	if f.source, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.source.Close(context.Background()); err != nil {
			t.Errorf("close source: %v", err)
		}
	})
	return f
}

// client runs a session and returns its id.
func (f *fixture) client(sharedKey string, services ...session.Attachable) string {
	s := session.New(session.Options{SharedKey: sharedKey})
	s.Allow(services...)
	return sessiontest.Run(f.t, f.m, f.dial, s).ID()
}

func (f *fixture) env(ids ...string) source.Env {
	return source.Env{Sessions: func() *session.Group { return f.m.Group(ids...) }}
}

// pin pins, and returns the key's content part, what is in the layer, and its id.
func (f *fixture) pin(env source.Env, attrs map[string]string) (content string, files map[string]string, id layers.ID) {
	f.t.Helper()
	p, err := f.source.Pin(f.t.Context(), env, source.Request{Identifier: "local://context", Attrs: attrs})
	if err != nil {
		f.t.Fatal(err)
	}
	ref, err := p.Fetch(f.t.Context(), env)
	if err != nil {
		f.t.Fatal(err)
	}
	files = f.files(ref)
	id = ref.IDs()[0]
	if err := errors.Join(ref.Release(), p.Close()); err != nil {
		f.t.Fatal(err)
	}
	for _, part := range p.Key() {
		if part.Name == "content" {
			content = part.Value
		}
	}
	return content, files, id
}

func (f *fixture) files(ref *layers.Ref) map[string]string {
	f.t.Helper()
	t, err := f.store.Tree(f.t.Context(), ref)
	if err != nil {
		f.t.Fatal(err)
	}
	out := map[string]string{}
	err = fstree.Walk(f.t.Context(), t, "", func(e fstree.Entry) error {
		switch {
		case e.Path == "":
		case e.IsDir():
			out[e.Path] = "dir"
		case e.IsSymlink():
			out[e.Path] = "-> " + e.Linkname
		case e.IsRegular():
			b, err := fstree.ReadFile(f.t.Context(), t, e.Path, 64<<20)
			if err != nil {
				return err
			}
			out[e.Path] = string(b)
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// write makes files below dir; contents that start with "-> " are a symlink's target.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, p)
		} else {
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func ours(dir string) session.Attachable {
	return filesync.NewProvider(map[string]filesync.Dir{"context": {Path: dir, Map: filesync.ResetOwner}}, filesync.ProviderOptions{})
}

func buildkits(t testing.TB, dir string) session.Attachable {
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return bkfilesync.NewFSSyncProvider(bkfilesync.StaticDirSource{"context": fs})
}

// settled waits until the changes of all files are old enough for change hints: these are made from change times, which
// cannot be set.
func settled(t testing.TB, dir string) {
	t.Helper()
	for {
		young := false
		err := filepath.Walk(dir, func(_ string, fi os.FileInfo, err error) error {
			young = young || err == nil && time.Since(ctime(fi)) < 2100*time.Millisecond
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if !young {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func ctime(fi os.FileInfo) time.Time { return time.Unix(fi.Sys().(*syscall.Stat_t).Ctim.Unix()) }

// statuses keeps the last of each status.
type statuses struct {
	mu   sync.Mutex
	last map[string]progress.Status
}

func (s *statuses) Status(st progress.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = map[string]progress.Status{}
	}
	s.last[st.ID] = st
}
func (s *statuses) Log(int, []byte)       {}
func (s *statuses) Warn(progress.Warning) {}

func (s *statuses) transferred(t testing.TB) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.last["transferring context:"]
	if st.Completed == nil {
		t.Error("status is not completed")
	}
	return st.Current
}
