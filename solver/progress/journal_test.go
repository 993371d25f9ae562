package progress_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/progress"
)

var id = digest.FromString("step")

func create(t testing.TB) *progress.Journal {
	j, err := progress.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() }) // again, for tests that fail early
	return j
}

func closeJournal(t testing.TB, j *progress.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// story reads a journal to its end.
func story(t testing.TB, j *progress.Journal) []progress.Event {
	t.Helper()
	var all []progress.Event
	err := j.Each(context.Background(), func(ev progress.Event) error {
		all = append(all, ev)
		return nil
	})
	if err != nil {
		t.Errorf("Each: %v", err)
	}
	return all
}

// everything is one event of each kind, with every field set.
func everything() []progress.Event {
	now := time.Unix(1_700_000_000, 123_456_789).UTC()
	return []progress.Event{
		{Vertex: &progress.Vertex{ID: id, Inputs: []digest.Digest{id}, Name: "a\nb", Started: &now, Completed: &now, Cached: true,
			Error: "é", Group: &progress.Group{ID: "g", Name: "n", Weak: true}}},
		{Status: &progress.Status{Vertex: id, ID: "s", Name: "n", Current: 1, Total: 2, Timestamp: now, Started: &now, Completed: &now}},
		{Log: &progress.Log{Vertex: id, Stream: progress.Stderr, Data: []byte("\x00\xff\n"), Timestamp: now}},
		{Warning: &progress.Warning{Vertex: id, Level: 1, Short: []byte("s"), Detail: [][]byte{{0xff}}, URL: "u",
			SourceInfo: &progress.SourceInfo{Filename: "f", Language: "l", Data: []byte{0}, Definition: []byte{1}},
			Ranges:     []progress.Range{{StartLine: 1, StartChar: 2, EndLine: 3, EndChar: 4}}}},
		{Trace: &progress.Trace{Vertex: id, Kind: "promise", Key: "k", Hit: true, Reason: "r", Time: now,
			Parts: []progress.Part{{Name: "n", Value: "v"}}}},
	}
}

func TestAJournalTellsWhatItWasTold(t *testing.T) {
	t.Parallel()
	j := create(t)
	want := everything()
	for _, ev := range want {
		j.Append(ev)
	}
	closeJournal(t, j)
	opened, err := progress.Open(j.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range []*progress.Journal{j, opened} {
		if got := story(t, j); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	j.Append(want[0]) // after the end: dropped
	if got := story(t, j); len(got) != len(want) {
		t.Errorf("%d events after an Append to a closed journal, want %d", len(got), len(want))
	}
}

func TestReadersFollowAtTheirOwnPace(t *testing.T) {
	t.Parallel()
	j := create(t)
	const n = 2_000
	var wg sync.WaitGroup
	for reader := range 4 {
		wg.Go(func() {
			r, err := j.NewReader()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = r.Close() }() // only read
			for i := range n {
				ev, err := r.Next(context.Background())
				if err != nil || string(ev.Log.Data) != fmt.Sprint(i) {
					t.Errorf("event %d is %+v, %v", i, ev, err)
					return
				}
				if reader == 0 && i%100 == 0 {
					runtime.Gosched()
				}
			}
			if _, err := r.Next(context.Background()); !errors.Is(err, io.EOF) || !r.Complete() {
				t.Errorf("the end is %v, complete %v", err, r.Complete())
			}
		})
	}
	w := progress.NewWriter(j, id)
	for i := range n {
		w.Log(progress.Stdout, fmt.Append(nil, i))
	}
	closeJournal(t, j)
	wg.Wait()
}

func TestALoneEventIsVisibleAtOnce(t *testing.T) {
	t.Parallel()
	j := create(t)
	defer closeJournal(t, j)
	r, err := j.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }() // only read
	for _, want := range everything() {
		j.Append(want)
		if got, err := r.Next(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next = %v for a reader that gave up", err)
	}
}

func TestATornTailIsTheEnd(t *testing.T) {
	t.Parallel()
	j := create(t)
	for _, ev := range everything() {
		j.Append(ev)
	}
	closeJournal(t, j)
	whole, err := os.ReadFile(j.Path())
	if err != nil {
		t.Fatal(err)
	}
	before := -1
	for size := len("slipway-journal 1\n"); size < len(whole); size++ {
		for _, junk := range [][]byte{nil, make([]byte, 100)} {
			path := filepath.Join(t.TempDir(), "torn")
			if err := os.WriteFile(path, append(bytes.Clone(whole[:size]), junk...), 0o600); err != nil {
				t.Fatal(err)
			}
			torn, err := progress.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := torn.NewReader()
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for ; err == nil; n++ {
				_, err = r.Next(t.Context())
			}
			if !errors.Is(err, io.EOF) || r.Complete() {
				t.Fatalf("of %d bytes the end is %v, complete %v", size, err, r.Complete())
			}
			if junk == nil && n < before {
				t.Fatalf("of %d bytes there are %d events, of fewer bytes %d", size, n, before)
			}
			if junk == nil {
				before = n
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestWhatIsNoJournalIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := progress.Open(path); err == nil {
		t.Error("Open takes anything")
	}
	if _, err := progress.Create(path); err == nil {
		t.Error("Create overwrites what is there")
	}
}

func TestALongStoryNeedsNoMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 128 MB")
	}
	j := create(t)
	w := progress.LogWriter(progress.NewWriter(j, id), progress.Stdout)
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const chunks = 2_000
	for range chunks {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	closeJournal(t, j)
	info, err := os.Stat(j.Path())
	if err != nil {
		t.Fatal(err)
	}
	if over := info.Size() - int64(chunks*len(chunk)); over > chunks*100 {
		t.Errorf("the file is %d bytes longer than the output", over)
	}
	got := 0
	if err := j.Each(t.Context(), func(ev progress.Event) error { got += len(ev.Log.Data); return nil }); err != nil {
		t.Fatal(err)
	}
	if got != chunks*len(chunk) {
		t.Errorf("read %d bytes", got)
	}
}

func TestHugeOutputIsSplit(t *testing.T) {
	t.Parallel()
	j := create(t)
	data := bytes.Repeat([]byte("0123456789"), 300_000)
	progress.NewWriter(j, id).Log(progress.Stdout, data)
	closeJournal(t, j)
	var got []byte
	for _, ev := range story(t, j) {
		got = append(got, ev.Log.Data...)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, want %d", len(got), len(data))
	}
}

func TestTapePlaysWhatItRecorded(t *testing.T) {
	t.Parallel()
	tape := &progress.Tape{Dir: t.TempDir()}
	w := progress.NewWriter(tape, id)
	chunk := bytes.Repeat([]byte("y"), 1000)
	var at int64
	var got int
	hear := func(ev progress.Event) { got += len(ev.Log.Data) }
	for i := range 5_000 { // 5 MB: memory and file
		w.Log(progress.Stdout, chunk)
		if i%777 == 0 {
			var err error
			if at, err = tape.Play(at, hear); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := tape.Play(at, hear); err != nil || got != 5_000*len(chunk) {
		t.Errorf("played %d bytes, %v", got, err)
	}
	got = 0
	if end, err := tape.Play(0, hear); err != nil || got != 5_000*len(chunk) || end != tape.Len() {
		t.Errorf("from the start: %d bytes to %d of %d, %v", got, end, tape.Len(), err)
	}
	if left, err := os.ReadDir(tape.Dir); err != nil || len(left) > 0 {
		t.Errorf("the tape's file has a name: %v, %v", left, err)
	}
	if err := tape.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	dir := f.TempDir()
	j, err := progress.Create(filepath.Join(dir, "seed"))
	if err != nil {
		f.Fatal(err)
	}
	for _, ev := range everything() {
		j.Append(ev)
	}
	closeJournal(f, j)
	seed, err := os.ReadFile(j.Path())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte("slipway-journal 1\n\x02L\xff\x01E"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := progress.Open(path)
		if err != nil {
			return
		}
		if err := j.Each(t.Context(), func(progress.Event) error { return nil }); err != nil {
			t.Errorf("a finished journal ends with %v", err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{80, 32 << 10} {
		b.Run(fmt.Sprintf("log of %d bytes", size), func(b *testing.B) {
			j := create(b)
			w := progress.NewWriter(j, id)
			data := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				w.Log(progress.Stdout, data)
			}
			closeJournal(b, j)
		})
	}
}
