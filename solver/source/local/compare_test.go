package local

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Clients that give no hints send everything every time. It is compared with what they sent last, and only what differs makes a layer.
func TestTransfersAreCompared(t *testing.T) {
	for name, key := range map[string]string{"with a shared key": "client", "without one": ""} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			dir := t.TempDir()
			big := make([]byte, 3*small+17)
			for i := range big {
				big[i] = byte(rand.IntN(256))
			}
			write(t, dir, map[string]string{"a": "first", "big": string(big), "z/last": "z"})
			old := time.Now().Add(-time.Hour).Truncate(time.Second)
			put := func(path string, content []byte) {
				t.Helper()
				p := filepath.Join(dir, path)
				if err := os.WriteFile(p, content, 0o644); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(p, old, old); err != nil { // nothing but the contents tells
					t.Fatal(err)
				}
			}
			put("big", big)
			put("a", []byte("first"))
			pin := func() (string, map[string]string, string) {
				content, files, id := f.pin(f.env(f.client(key, buildkits(t, dir))), nil)
				return content, files, string(id)
			}
			content, _, id := pin()
			if again, _, sameID := pin(); again != content || sameID != id {
				t.Errorf("the same files give %s in %s, and then %s in %s", content, id, again, sameID)
			}
			for what, at := range map[string]int{"beginning": 0, "middle": small + 5, "end": len(big) - 1} {
				changed := bytes.Clone(big)
				changed[at]++
				put("big", changed)
				again, files, otherID := pin()
				if again == content || otherID == id || files["big"] != string(changed) || files["z/last"] != "z" || files["a"] != "first" {
					t.Errorf("a change at the %s is not seen", what)
				}
				put("big", big)
				if again, files, _ := pin(); again != content || files["big"] != string(big) {
					t.Errorf("after the change at the %s the files before it are not what they were", what)
				}
			}
			put("a", []byte("other"))
			if again, files, _ := pin(); again == content || files["a"] != "other" || files["big"] != string(big) {
				t.Errorf("a small file's change is not seen: %q", files["a"])
			}
			if err := os.Remove(filepath.Join(dir, "z/last")); err != nil {
				t.Fatal(err)
			}
			if _, files, _ := pin(); files["z/last"] != "" || files["a"] != "other" {
				t.Error("a file that is gone is still there")
			}
		})
	}
}

// What was transferred since it was young, and did not change, has a hint from then on.
func TestHintsAreRememberedOfWhatWasCompared(t *testing.T) {
	f := newFixture(t, nil)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "text"})
	pin := func() int64 {
		s := &statuses{}
		env := f.env(f.client("client", ours(dir)))
		env.Progress = s
		f.pin(env, nil)
		return s.transferred(t)
	}
	if n := pin(); n != 4 {
		t.Errorf("at first %d bytes are transferred", n)
	}
	settled(t, dir)
	if n := pin(); n != 4 {
		t.Errorf("a file that was young is transferred as %d bytes", n)
	}
	if n := pin(); n != 0 {
		t.Errorf("a file that is known is transferred as %d bytes", n)
	}
}
