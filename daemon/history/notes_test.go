package history

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
)

// A daemon is killed, and then its host, before the disk had what it noted.
func TestRecordsBeforeTheyAreOnDisk(t *testing.T) {
	root := filepath.Join(t.TempDir(), "h")
	s := open(t, Options{Root: root})
	s.db.writing.Lock() // the disk is slow
	build(t, s, "torn", nil)
	b := begin(t, s, Start{Ref: "whole"})
	if err := b.Keep(t.Context(), []byte("outcome")); err != nil {
		t.Fatal(err)
	}
	if err := b.End(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := refs(list(t, s, &controlapi.BuildHistoryRequest{})); got != "whole torn" {
		t.Errorf("records: %s", got)
	}
	want := record(t, s, "whole")
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(copied, "blobs", "blobs", "sha256", digest.Digest(record(t, s, "torn").Logs.Digest).Encoded())
	s.db.writing.Unlock()
	if err := os.Truncate(torn, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, "notes", "half"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		after := open(t, Options{Root: copied})
		if got := refs(list(t, after, &controlapi.BuildHistoryRequest{})); got != "whole" {
			t.Errorf("records: %s", got)
		}
		if got := record(t, after, "whole"); !got.EqualVT(want) {
			t.Errorf("it became %v", got)
		}
		if got, err := after.Outcome(t.Context(), "whole"); err != nil || string(got) != "outcome" {
			t.Errorf("outcome: %q, %v", got, err)
		}
		if n := countBlobs(t, after); n != 2 {
			t.Errorf("%d blobs", n)
		}
		if left, err := os.ReadDir(filepath.Join(copied, "notes")); err != nil || len(left) > 0 {
			t.Errorf("notes: %v, %v", left, err)
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What is changed or forgotten is not brought back by an older note.
func TestNotesAreOvertaken(t *testing.T) {
	root := filepath.Join(t.TempDir(), "h")
	s := open(t, Options{Root: root})
	for _, ref := range []string{"pinned", "deleted"} {
		build(t, s, ref, nil)
	}
	if err := s.Pin("pinned", true); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete("deleted"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Root: root})
	if got := refs(list(t, s, &controlapi.BuildHistoryRequest{})); got != "pinned" || !record(t, s, "pinned").Pinned {
		t.Errorf("records: %s, %v", got, record(t, s, "pinned"))
	}
}

// Large blobs take another way into the store.
func TestLargeBlob(t *testing.T) {
	s := open(t, Options{Root: filepath.Join(t.TempDir(), "h")})
	data := make([]byte, smallBlob+1)
	for range 2 {
		b, err := s.blobs.write(t.Context(), "", func(w io.Writer) error {
			_, err := io.Copy(struct{ io.Writer }{w}, bytes.NewReader(data))
			return err
		})
		if err != nil || b.Digest != digest.FromBytes(data) || b.Size != int64(len(data)) {
			t.Errorf("%v, %v", b, err)
		}
		if err := s.blobs.sync(b.Digest); err != nil {
			t.Error(err)
		}
	}
	if !s.blobs.whole(digest.FromBytes(data)) || countBlobs(t, s) != 1 {
		t.Error("it is not there")
	}
}
