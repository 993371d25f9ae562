package attrs

import (
	"maps"
	"slices"
	"testing"
)

func TestBool(t *testing.T) {
	t.Parallel()
	m := map[string]string{"empty": "", "no": "false", "one": "1", "bad": "perhaps"}
	for key, want := range map[string]bool{"empty": true, "no": false, "one": true, "missing": true} {
		if got, err := Bool(m, key, true); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", key, got, err, want)
		}
	}
	if _, err := Bool(m, "bad", false); err == nil {
		t.Error("a value that is no boolean must be an error")
	}
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	key := "source-date-epoch"
	if e, err := ParseEpoch(nil); err != nil || e.Given || e.Seconds != nil {
		t.Errorf("none: %+v, %v", e, err)
	}
	if e, err := ParseEpoch(map[string]string{key: ""}); err != nil || !e.Given || e.Seconds != nil {
		t.Errorf("empty must be given and none: %+v, %v", e, err)
	}
	if e, err := ParseEpoch(map[string]string{key: "-5"}); err != nil || !e.Given || e.Seconds == nil || *e.Seconds != -5 {
		t.Errorf("-5: %+v, %v", e, err)
	}
	for _, bad := range []string{"1.5", "yesterday", " 1", "99999999999999999999"} {
		if _, err := ParseEpoch(map[string]string{key: bad}); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attr, chosen string
		want         []string
		bad          bool
	}{
		{attr: "", want: nil},
		{attr: " , ", want: nil},
		{attr: "a", want: []string{"docker.io/library/a:latest"}},
		{attr: "a, b:1,docker.io/library/a:latest", want: []string{"docker.io/library/a:latest", "docker.io/library/b:1"}},
		{attr: "localhost:5000/x/y:z", want: []string{"localhost:5000/x/y:z"}},
		{attr: "*", chosen: "c:2,d", want: []string{"docker.io/library/c:2", "docker.io/library/d:latest"}},
		{attr: "c:2,*", chosen: "c:2", want: []string{"docker.io/library/c:2"}},
		{attr: "*", bad: true},
		{attr: "*", chosen: "*", bad: true},
		{attr: "*", chosen: "UPPER", bad: true},
		{attr: "UPPER", bad: true},
		{attr: "a:b:c", bad: true},
	} {
		names, err := ParseNames(map[string]string{"name": c.attr})
		var got []string
		if err == nil {
			got, err = names.Resolve(c.chosen)
		}
		if (err != nil) != c.bad || !slices.Equal(got, c.want) {
			t.Errorf("%q with %q: got %v, %v, want %v", c.attr, c.chosen, got, err, c.want)
		}
	}
}

func TestAnnotations(t *testing.T) {
	t.Parallel()
	list, err := Annotations(map[string]string{
		"name":                                    "x",
		"annotation.org.example.a":                "1",
		"annotation-index.b":                      "2",
		"annotation-manifest[linux/arm64/v8].c":   "3",
		"annotation-manifest-descriptor.d.e":      "4",
		"annotation[linux/amd64].a":               "6",
		"annotation[windows(10.0.17763)/amd64].w": "7",
		"annotations-of-someone-else":             "5",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Annotation{
		{Index, "", "b", "2"},
		{Manifest, "", "org.example.a", "1"},
		{ManifestDescriptor, "", "d.e", "4"},
		{Manifest, "linux/amd64", "a", "6"},
		{Manifest, "linux/arm64", "c", "3"},
		{Manifest, "windows(10.0.17763)/amd64", "w", "7"},
	}
	if !slices.Equal(list, want) {
		t.Errorf("got %+v\nwant %+v", list, want)
	}
	for _, bad := range []string{
		"annotation-nowhere.k", "annotation.", "annotation[x.k", "annotation[].k", "annotation[a/b/c/d/e].k",
		"annotation-index[linux/amd64].k", "annotation-.k",
	} {
		if _, err := Annotations(map[string]string{bad: "v"}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func FuzzAnnotations(f *testing.F) {
	f.Add("annotation-index.c", "v")
	f.Add("annotation[a/b].c", "v")
	f.Add("annotation-manifest-descriptor[linux/arm/v7].a.b", "")
	f.Fuzz(func(t *testing.T, key, value string) {
		list, err := Annotations(map[string]string{key: value})
		if err != nil {
			return
		}
		for _, a := range list {
			if a.Key == "" || a.Value != value {
				t.Errorf("%q gave %+v", key, a)
			}
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add("a,b:1", "*")
	f.Add("*,x", "y,,z")
	f.Fuzz(func(t *testing.T, attr, chosen string) {
		all := map[string]string{"name": attr}
		before := maps.Clone(all)
		names, err := ParseNames(all)
		if err != nil {
			return
		}
		got, err := names.Resolve(chosen)
		if err != nil {
			return
		}
		if again, err := parseNames(joined(got)); err != nil || !slices.Equal(again, got) {
			t.Errorf("names are not whole: %v became %v, %v", got, again, err)
		}
		if !maps.Equal(all, before) {
			t.Error("attributes were changed")
		}
	})
}

func joined(list []string) (s string) {
	for _, v := range list {
		s += v + ","
	}
	return s
}
