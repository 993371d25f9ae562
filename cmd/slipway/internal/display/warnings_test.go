package display

import (
	"bytes"
	"testing"

	"github.com/moby/buildkit/client"
)

func TestWarningsAreListedOnce(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := printWarnings(&out, []client.VertexWarning{{Short: []byte("A: one (line 1)")}, {Short: []byte("B: two")}, {Short: []byte("A: one (line 1)")}}); err != nil {
		t.Fatal(err)
	}
	want := "\n 2 warnings found (slipway build --check shows more):\n - A: one (line 1)\n - B: two\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	out.Reset()
	if err := printWarnings(&out, nil); err != nil || out.Len() != 0 {
		t.Errorf("nothing to warn of: %q, %v", out.String(), err)
	}
}
