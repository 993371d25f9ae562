package ops

import (
	"fmt"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// manyFiles is a layer of n small files, a hundred to a directory.
func (y *yard) manyFiles(n int) *layers.Ref {
	files := make([]file, 0, n+n/100)
	for i := range n {
		if i%100 == 0 {
			files = append(files, file{path: fmt.Sprintf("d%d/", i/100)})
		}
		files = append(files, file{path: fmt.Sprintf("d%d/f%d", i/100, i), data: fmt.Sprintf("content of file %d", i)})
	}
	return y.layer(files...)
}

func BenchmarkCopy20000Files(b *testing.B) {
	y := newYard(b, nil)
	in := NewResult(y.manyFiles(20_000))
	defer y.release(in)
	op := &pb.FileOp{Actions: []*pb.FileAction{{Input: -1, SecondaryInput: 0, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{
		Src: "/", Dest: "/to", DirCopyContents: true, Mode: -1, Timestamp: -1, CreateDestPath: true}}}}}
	b.ReportAllocs()
	for b.Loop() {
		work, _, err := y.f.NewLoader(LoadOptions{}).fileOp(op, 1)
		if err != nil {
			b.Fatal(err)
		}
		out, err := work.Run(b.Context(), &fakeCall{}, []solver.Result{in})
		if err != nil {
			b.Fatal(err)
		}
		y.release(out...)
	}
}

func BenchmarkContentDigest20000Files(b *testing.B) {
	y := newYard(b, nil)
	in := NewResult(y.manyFiles(20_000))
	defer y.release(in)
	sel := newSelector(y.f, 0, copySelectors(&pb.FileActionCopy{Src: "/"}), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sel.Digest(b.Context(), &fakeCall{}, in); err != nil {
			b.Fatal(err)
		}
	}
}
