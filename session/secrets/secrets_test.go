package secrets_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/secrets"
	"github.com/slipwaybuild/slipway/session/sessiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		want secrets.Source
		err  string
	}{
		{in: "id=a", want: secrets.Source{ID: "a"}},
		{in: "id=a,src=/x/y", want: secrets.Source{ID: "a", File: "/x/y"}},
		{in: `ID=a,"source=/x,y"`, want: secrets.Source{ID: "a", File: "/x,y"}},
		{in: "type=file,id=a,src=f", want: secrets.Source{ID: "a", File: "f"}},
		{in: "id=a,env=B", want: secrets.Source{ID: "a", Env: "B"}},
		{in: "type=env,id=a,src=B", want: secrets.Source{ID: "a", Env: "B"}},
		{in: "src=a=b,id=c", want: secrets.Source{ID: "c", File: "a=b"}},
		{in: "", want: secrets.Source{}},
		{in: "a", err: "invalid field 'a' must be a key=value pair"},
		{in: "id=a,k=f", err: "unexpected key 'k' in 'k=f'"},
		{in: "id=a,type=x", err: `unsupported secret type "x"`},
		{in: `id="a`, err: "failed to parse csv secret: "},
	} {
		got, err := secrets.Parse(tc.in)
		switch {
		case tc.err == "" && (err != nil || got != tc.want):
			t.Errorf("%q: %+v, %v; want %+v", tc.in, got, err, tc.want)
		case tc.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.err)):
			t.Errorf("%q: %v; want %s", tc.in, err, tc.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"id=a,src=b", `"id=a,b",env=c`, "type=env,src=X", "=", `"`, "id=a\nid=b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if _, err := secrets.Parse(in); err != nil && err.Error() == "" {
			t.Error("an error without text")
		}
	})
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("FROM_ENV", "env value")
	t.Setenv("BY_ID", "id value")
	write := func(name string, data []byte) string {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	grows := write("grows", nil)
	st, err := secrets.NewStore([]secrets.Source{
		{ID: "file", File: write("f", []byte("file value"))},
		{ID: "env", Env: "FROM_ENV"},
		{ID: "BY_ID"},
		{ID: "f"}, // a file named like the id
		{ID: "unset", Env: "NOT_SET_ANYWHERE"},
		{ID: "largest", File: write("l", make([]byte, secrets.MaxSize))},
		{ID: "grows", File: grows},
	})
	if err != nil {
		t.Fatal(err)
	}
	write("grows", make([]byte, secrets.MaxSize+1))
	g := sessiontest.Pair(t, secrets.FromStore(st))
	for id, want := range map[string]string{
		"file": "file value", "env": "env value", "BY_ID": "id value", "f": "file value", "unset": "", "largest": strings.Repeat("\x00", secrets.MaxSize),
	} {
		if got, err := secrets.Get(t.Context(), g, id); string(got) != want || err != nil {
			t.Errorf("%s: %d bytes, %v", id, len(got), err)
		}
	}
	if _, err := secrets.Get(t.Context(), g, "grows"); err == nil || !strings.Contains(err.Error(), "invalid secret size") {
		t.Errorf("a file that has grown: %v", err)
	}
	if _, err := secrets.Get(t.Context(), g, "nosuch"); !errors.Is(err, secrets.ErrNotFound) || err.Error() != "secret nosuch: not found" {
		t.Errorf("unknown id: %v", err)
	}

	for name, bad := range map[string]struct {
		src  secrets.Source
		want string
	}{
		"missing file": {secrets.Source{ID: "x", File: "nosuchfile"}, "failed to stat nosuchfile: "},
		"by id":        {secrets.Source{ID: "nosuchfile"}, "failed to stat nosuchfile: "},
		"too big":      {secrets.Source{ID: "x", File: grows}, "secret x too big. max size 500KiB"},
		"no id":        {secrets.Source{File: grows}, "secret missing ID"},
	} {
		if _, err := secrets.New([]secrets.Source{bad.src}); err == nil || !strings.HasPrefix(err.Error(), bad.want) {
			t.Errorf("%s: %v, want %s", name, err, bad.want)
		}
	}
}

type failing struct{ error }

func (f failing) Secret(context.Context, string) ([]byte, error) { return nil, f.error }

// TestGroup: whoever of the group has the secret gives it; an error of one who should have it is not passed over.
func TestGroup(t *testing.T) {
	t.Parallel()
	m := sessiontest.NewManager(t, session.ManagerOptions{})
	dialer := sessiontest.HTTP(t, m)
	run := func(id string, services ...session.Attachable) {
		s := session.New(session.Options{ID: id})
		s.Allow(services...)
		sessiontest.Run(t, m, dialer, s)
	}
	run("none")
	run("other", secrets.FromStore(secrets.Map{"x": nil}))
	run("has", secrets.FromStore(secrets.Map{"a": []byte("value")}))
	run("broken", secrets.FromStore(failing{errors.New("disk on fire")}))

	if got, err := secrets.Get(t.Context(), m.Group("none", "other", "has"), "a"); !bytes.Equal(got, []byte("value")) || err != nil {
		t.Errorf("third of three: %q, %v", got, err)
	}
	ann, bob := &witness{}, &witness{}
	g := session.Join(m.Group("has").Witnessed(ann), m.Group("other").Witnessed(bob).Witnessed(ann))
	if _, err := secrets.Get(t.Context(), g, "a"); err != nil {
		t.Error(err)
	}
	if got := ann.heard + "|" + bob.heard; got != "a=value|a=value" {
		t.Errorf("witnesses heard %q", got)
	}
	if _, err := secrets.Get(t.Context(), m.Group("none", "other"), "a"); !errors.Is(err, secrets.ErrNotFound) {
		t.Errorf("nobody has it: %v", err)
	}
	if _, err := secrets.Get(t.Context(), m.Group("broken", "has"), "a"); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("one fails: %v", err)
	}
	if _, err := secrets.Get(t.Context(), m.Group(), "a"); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("no session: %v", err)
	}
}

type witness struct{ heard string }

func (w *witness) Learn(id string, value []byte)      { w.heard += id + "=" + string(value) }
func (w *witness) LearnToken(id string, value []byte) { w.heard += "token " + id + "=" + string(value) }
