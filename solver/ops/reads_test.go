package ops

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"golang.org/x/sys/unix"
)

func TestReads(t *testing.T) {
	y := newYard(t, nil)
	r := RefOf(y.result(
		file{path: "dir/"}, file{path: "dir/a.txt", data: "0123456789", mode: 0o4755, uid: 3, gid: 4}, file{path: "dir/b"},
		file{path: "up", mode: unix.S_IFLNK | 0o777, data: "../../../dir"},
		file{path: "dangling", mode: unix.S_IFLNK | 0o777, data: "/nowhere"},
	))
	for _, c := range []struct {
		name string
		req  gwclient.ReadRequest
		want string
		err  string
	}{
		{name: "whole", req: gwclient.ReadRequest{Filename: "dir/a.txt"}, want: "0123456789"},
		{name: "absolute, through a symlink", req: gwclient.ReadRequest{Filename: "/up/a.txt"}, want: "0123456789"},
		{name: "a range", req: gwclient.ReadRequest{Filename: "dir/a.txt", Range: &gwclient.FileRange{Offset: 2, Length: 3}}, want: "234"},
		{name: "to the end", req: gwclient.ReadRequest{Filename: "dir/a.txt", Range: &gwclient.FileRange{Offset: 8, Length: 30}}, want: "89"},
		{name: "behind the end", req: gwclient.ReadRequest{Filename: "dir/a.txt", Range: &gwclient.FileRange{Offset: 80, Length: 3}}},
		{name: "missing", req: gwclient.ReadRequest{Filename: "x"}, err: "open x: no such file or directory"},
		{name: "dangling", req: gwclient.ReadRequest{Filename: "dangling"}, err: "no such file or directory"},
		{name: "directory", req: gwclient.ReadRequest{Filename: "dir"}, err: "is a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dt, err := y.f.ReadFile(t.Context(), r, nil, c.req)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(c.err, "no such") && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || string(dt) != c.want {
				t.Errorf("read %q, %v; want %q", dt, err, c.want)
			}
		})
	}

	st, err := y.f.StatFile(t.Context(), r, nil, gwclient.StatRequest{Path: "up/a.txt"})
	if err != nil || st.Path != "a.txt" || st.Size != 10 || st.Uid != 3 || fs.FileMode(st.Mode) != 0o755|fs.ModeSetuid {
		t.Errorf("stat = %+v, %v", st, err)
	}
	if st, err = y.f.StatFile(t.Context(), r, nil, gwclient.StatRequest{Path: "up"}); err != nil || st.Linkname != "../../../dir" {
		t.Errorf("stat of a symlink = %+v, %v", st, err)
	}
	if _, err = y.f.StatFile(t.Context(), r, nil, gwclient.StatRequest{Path: "no/such"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat of nothing: %v", err)
	}

	names := func(req gwclient.ReadDirRequest) []string {
		t.Helper()
		sts, err := y.f.ReadDir(t.Context(), r, nil, req)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range sts {
			out = append(out, s.Path)
		}
		return out
	}
	if got := names(gwclient.ReadDirRequest{Path: "/"}); !slices.Equal(got, []string{"dangling", "dir", "up"}) {
		t.Errorf("readdir = %q", got)
	}
	if got := names(gwclient.ReadDirRequest{Path: "up", IncludePattern: "*.txt"}); !slices.Equal(got, []string{"a.txt"}) {
		t.Errorf("readdir = %q", got)
	}
	if _, err := y.f.ReadDir(t.Context(), r, nil, gwclient.ReadDirRequest{Path: "none"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("readdir of nothing: %v", err)
	}

	// The empty stack is a root with nothing in it.
	if _, err := y.f.ReadFile(t.Context(), nil, nil, gwclient.ReadRequest{Filename: "x"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("read of scratch: %v", err)
	}
	if sts, err := y.f.ReadDir(t.Context(), nil, nil, gwclient.ReadDirRequest{Path: "/"}); err != nil || len(sts) != 0 {
		t.Errorf("readdir of scratch = %v, %v", sts, err)
	}
	if err := y.f.Evaluate(t.Context(), nil, nil, nil); err != nil {
		t.Errorf("evaluate scratch: %v", err)
	}
}
