package remotecache

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwaybuild/slipway/solver"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key(name string) [32]byte { return solver.Parts{{Name: "n", Value: name}}.Sum("test") }

func layer(name string) Layer {
	return Layer{
		Descriptor: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromString("blob " + name), Size: 7},
		DiffID:     digest.FromString("diff " + name), CreatedAt: time.Unix(1000, 0).UTC(),
	}
}

// sample makes a cache with one entry for each name, on layers "base" and its own, used at the given times in seconds.
func sample(used int64, names ...string) *Cache {
	c := &Cache{Layers: []Layer{layer("base")}}
	for _, n := range names {
		c.Layers = append(c.Layers, layer(n))
		c.Entries = append(c.Entries, Entry{
			Identity: key(n), Promises: []solver.Promise{key("p " + n)}, Step: digest.FromString(n), Name: "RUN " + n, Used: time.Unix(used, 0),
			Outputs:  []Output{{Stack: []int{0, NoLayer, len(c.Layers) - 1}}, {Nil: true}, {Stack: []int{}}},
			Contents: []solver.Content{{Output: 2, Selector: "/x", Digest: digest.FromString("x")}},
		})
	}
	return c
}

func names(c *Cache) (list []string) {
	for _, e := range c.Entries {
		list = append(list, e.Name)
	}
	slices.Sort(list)
	return list
}

func TestConfigComesBack(t *testing.T) {
	want := sample(5, "a", "b")
	for _, annotate := range []bool{true, false} {
		data, err := want.Marshal(annotate)
		if err != nil {
			t.Fatal(err)
		}
		var describe map[digest.Digest]Layer
		if !annotate {
			describe = map[digest.Digest]Layer{}
			for _, l := range want.Layers {
				describe[l.Descriptor.Digest] = l
			}
		}
		got, err := Parse(data, describe)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("annotated %v: %v\n%+v\nwant\n%+v", annotate, err, got, want)
		}
	}
	data, err := want.MarshalInline()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseInline(data, want.Layers); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("inline: %v\n%+v", err, got)
	}
}

// buildKits is a config as BuildKit writes it.
const buildKits = `{"layers":[{"blob":"sha256:%s","parent":-1}],"records":[{"digest":"sha256:%s","layers":[{"layer":0,"createdAt":"2024-01-01T00:00:00Z"}],"inputs":[[{"selector":"s","link":1}]]},{"digest":"sha256:%s"}]}`

func TestForeignRecordsAreCounted(t *testing.T) {
	d := digest.FromString("d").Encoded()
	c, err := Parse(fmt.Appendf(nil, buildKits, d, d, d), nil)
	if err != nil || len(c.Entries) != 0 || c.Foreign != 2 {
		t.Errorf("%+v, %v; want 2 foreign records", c, err)
	}
	ours := sample(1, "a")
	data, err := ours.Marshal(true)
	if err != nil {
		t.Fatal(err)
	}
	var w wireConfig
	if err := json.Unmarshal(data, &w); err != nil {
		t.Fatal(err)
	}
	for i := range w.Records {
		w.Records[i].Step.Keys = "slipway.0"
	}
	if data, err = json.Marshal(w); err != nil {
		t.Fatal(err)
	}
	if c, err := Parse(data, nil); err != nil || len(c.Entries) != 0 || c.Foreign != 3 {
		t.Errorf("keys of another format: %+v, %v", c, err)
	}
}

func TestIncompleteStepsAreLeftOut(t *testing.T) {
	whole := sample(1, "a", "b")
	for what, change := range map[string]func(*wireConfig){
		"an output is missing":       func(w *wireConfig) { w.Records = w.Records[1:] },
		"a layer is not described":   func(w *wireConfig) { w.Layers[1].Annotations = nil },
		"a layer is out of range":    func(w *wireConfig) { w.Records[0].Step.Stack[2] = 99 },
		"a layer is negative":        func(w *wireConfig) { w.Records[0].Step.Stack[2] = -2 },
		"a layer has no digest":      func(w *wireConfig) { w.Layers[1].Blob = "sha256:short" },
		"a layer has a bad diffID":   func(w *wireConfig) { w.Layers[1].Annotations.DiffID = "../../etc" },
		"a layer has less than none": func(w *wireConfig) { w.Layers[1].Annotations.Size = -1 },
	} {
		data, err := whole.Marshal(true)
		if err != nil {
			t.Fatal(err)
		}
		var w wireConfig
		if err := json.Unmarshal(data, &w); err != nil {
			t.Fatal(err)
		}
		change(&w)
		if data, err = json.Marshal(w); err != nil {
			t.Fatal(err)
		}
		c, err := Parse(data, nil)
		if err != nil || !slices.Equal(names(c), []string{"RUN b"}) {
			t.Errorf("%s: %v, %v", what, names(c), err)
		}
	}
}

// A step of which the cache has one output of several is known by that.
func TestAbsentOutputs(t *testing.T) {
	want := sample(1, "a")
	want.Entries[0].Outputs = []Output{{Absent: true}, {Nil: true}, {Stack: []int{0, 1}}}
	data, err := want.Marshal(true)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data, nil)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	merged := &Cache{}
	merged.Merge(want, func(Layer) bool { return false })
	merged.Shrink()
	if e := merged.Entries[0]; !e.partial() || e.useless() || !e.Outputs[0].Absent {
		t.Errorf("merged %+v", e)
	}
	want.Entries[0].Outputs[2] = Output{Stack: []int{}}
	if data, err = want.Marshal(true); err != nil {
		t.Fatal(err)
	}
	if c, err := Parse(data, nil); err != nil || len(c.Entries) != 0 {
		t.Errorf("a step without anything: %+v, %v", c, err)
	}
}

func TestMerge(t *testing.T) {
	mine, old := sample(10, "a", "b"), sample(5, "b", "c", "d")
	old.Entries[0].Promises = append(old.Entries[0].Promises, key("another way to b"))
	old.Entries[1].Promises = append(old.Entries[1].Promises, key("p a")) // leads elsewhere now
	lost := layer("d").DiffID
	mine.Merge(old, func(l Layer) bool { return l.DiffID == lost })
	mine.Shrink()
	mine.sort()
	if got := names(mine); !slices.Equal(got, []string{"RUN a", "RUN b", "RUN c"}) {
		t.Fatalf("merged %v", got)
	}
	b := newBook(mine)
	for promise, want := range map[string]string{"p a": "a", "p b": "b", "another way to b": "b", "p c": "c"} {
		if got := b.aliases[key(promise)]; got != key(want) {
			t.Errorf("%q leads elsewhere than to %s", promise, want)
		}
	}
	c := mine.Entries[b.entries[key("c")]]
	if l := mine.Layers[c.Outputs[0].Stack[2]]; l.DiffID != layer("c").DiffID || c.Used != time.Unix(5, 0) {
		t.Errorf("c has %v, used %v", l, c.Used)
	}
	if len(mine.Layers) != 4 {
		t.Errorf("%d layers, want base, a, b and c", len(mine.Layers))
	}
	for _, e := range mine.Entries {
		if len(e.Contents) != 1 {
			t.Errorf("%s has %d contents", e.Name, len(e.Contents))
		}
	}
}

func TestShrinkDropsTheOldest(t *testing.T) {
	c := &Cache{}
	for i := range maxEntries + 10 {
		c.Entries = append(c.Entries, Entry{Identity: key(fmt.Sprint(i)), Outputs: []Output{{Nil: true}}, Used: time.Unix(int64(i), 0)})
	}
	c.Shrink()
	if len(c.Entries) != maxEntries || !c.Entries[maxEntries-1].Used.Equal(time.Unix(10, 0)) {
		t.Errorf("%d entries, the oldest of %v", len(c.Entries), c.Entries[len(c.Entries)-1].Used)
	}
	c = &Cache{}
	for i := range maxLayers + 10 {
		c.Layers = append(c.Layers, layer(fmt.Sprint(i)))
		c.Entries = append(c.Entries, Entry{Identity: key(fmt.Sprint(i)), Outputs: []Output{{Stack: []int{i}}}, Used: time.Unix(int64(i), 0)})
	}
	c.Shrink()
	if len(c.Layers) != maxLayers || len(c.Entries) != maxLayers {
		t.Errorf("%d layers, %d entries", len(c.Layers), len(c.Entries))
	}
}

// FuzzParse gives the parser what it likes: it must not fail in another way than with an error, and what it accepts must be whole.
func FuzzParse(f *testing.F) {
	data, err := sample(3, "a", "b").Marshal(true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	d := digest.FromString("d").Encoded()
	f.Add(fmt.Appendf(nil, buildKits, d, d, d))
	f.Add([]byte(`{"records":[{"chains":[{"layers":[0,-1,5]}],"slipway":{"keys":"slipway.1","identity":"00","output":-1}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data, nil)
		if err == nil {
			whole(t, c)
			back, err := c.Marshal(true)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := Parse(back, nil); err != nil || len(again.Entries) != len(c.Entries) {
				t.Fatalf("%d entries become %d: %v", len(c.Entries), len(again.Entries), err)
			}
			c.Merge(sample(1, "m"), func(Layer) bool { return false })
			c.Shrink()
			c.sort()
			whole(t, c)
		}
		if c, err := ParseInline(data, []Layer{layer("x")}); err == nil {
			whole(t, c)
		}
	})
}

func whole(t *testing.T, c *Cache) {
	t.Helper()
	for _, l := range c.Layers {
		if !l.valid() {
			t.Fatalf("layer %+v", l)
		}
	}
	for _, e := range c.Entries {
		if len(e.Outputs) == 0 {
			t.Fatalf("step %s has no output", e.Identity)
		}
		for _, o := range e.Outputs {
			for _, l := range o.Stack {
				if l != NoLayer && (l < 0 || l >= len(c.Layers)) {
					t.Fatalf("layer %d of %d", l, len(c.Layers))
				}
			}
		}
	}
}

func mount(id, content string, written int64) Mount {
	return Mount{ID: id, DiffID: digest.FromString(content), Written: time.Unix(written, 0), Chunks: []Chunk{{
		Descriptor: ocispecs.Descriptor{MediaType: ChunkMediaType, Digest: digest.FromString("chunk " + content), Size: 5}, Plain: digest.FromString("plain " + content),
	}}}
}

func TestMountsComeBack(t *testing.T) {
	want := sample(5, "a")
	want.Mounts = []Mount{mount("/a", "1", 7), mount("/b", "2", 8)}
	data, err := want.Marshal(true)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(data, nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\nwant\n%+v", err, got, want)
	}
	for what, change := range map[string]func(*wireMount){
		"no id":          func(m *wireMount) { m.ID = "" },
		"an id twice":    func(m *wireMount) { m.ID = "/b" },
		"no chunks":      func(m *wireMount) { m.Chunks = nil },
		"a bad diffID":   func(m *wireMount) { m.DiffID = "x" },
		"a bad chunk":    func(m *wireMount) { m.Chunks[0].Blob = "../x" },
		"a huge chunk":   func(m *wireMount) { m.Chunks[0].Size = maxChunk + 1 },
		"an empty chunk": func(m *wireMount) { m.Chunks[0].Size = 0 },
		"too many chunks": func(m *wireMount) {
			m.Chunks = slices.Repeat(m.Chunks, maxChunks)
		},
	} {
		var w wireConfig
		if err := json.Unmarshal(data, &w); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(w.Mounts)
		change(&w.Mounts[1])
		broken, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(broken, nil)
		if err != nil || len(got.Mounts) != 1 || got.Mounts[0].ID != "/b" || len(got.Entries) != 1 {
			t.Errorf("%s: %+v, %v", what, got.Mounts, err)
		}
	}
}

func TestMountsAreMerged(t *testing.T) {
	mine, old := sample(5, "a"), sample(6, "b")
	mine.Mounts = []Mount{mount("/a", "mine", 1)}
	old.Mounts = []Mount{mount("/b", "old", 2), mount("/a", "old", 3)}
	mine.Merge(old, func(Layer) bool { return false })
	mine.Shrink()
	mine.sort()
	if want := []Mount{mount("/a", "mine", 1), mount("/b", "old", 2)}; !reflect.DeepEqual(mine.Mounts, want) {
		t.Errorf("%+v, want %+v", mine.Mounts, want)
	}
	now := mine.clone()
	if !now.has(mine) {
		t.Error("a cache has not what it has")
	}
	now.Mounts = []Mount{mount("/a", "of somebody else", 9)}
	if now.has(mine) {
		t.Error("a mount is missing, and nobody sees it")
	}
	now.Mounts = append(now.Mounts, mount("/b", "of somebody else", 9))
	if !now.has(mine) {
		t.Error("of two that write a mount at a time, one may win")
	}
}
