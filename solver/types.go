package solver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// KeyFormat is part of every key. Raise it when what a key is made of changes its meaning.
const KeyFormat = "slipway.1"

// Promise names what a vertex will be, from definitions alone.
type Promise [sha256.Size]byte

// Identity names what a vertex is: its op and what the op reads.
type Identity [sha256.Size]byte

func (p Promise) String() string  { return hex.EncodeToString(p[:]) }
func (i Identity) String() string { return hex.EncodeToString(i[:]) }

// Part is one named part of a key.
type Part = progress.Part

// Parts is a key before it is a digest. Order counts.
type Parts []Part

// Sum hashes the parts under a domain ("promise", "identity", …). Names and values are length-prefixed, so no two different
// lists collide by concatenation.
func (p Parts) Sum(domain string) [sha256.Size]byte {
	h := sha256.New()
	write := func(s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }
	write(KeyFormat)
	write(domain)
	for _, part := range p {
		write(part.Name)
		write(part.Value)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Vertex is one step of a build's graph. It is immutable once the graph is loaded and belongs to one build.
type Vertex struct {
	// ID is the stable id of the step, taken from its definition. It is in no key; progress and history speak of it.
	ID digest.Digest
	// Name is what people read.
	Name string
	// Op does the work.
	Op Op
	// Inputs are the edges the op reads, in the op's order.
	Inputs []Edge
	// IgnoreCache makes the step run in this build whatever the cache holds. What it gives is stored, and later builds see it.
	IgnoreCache bool
	// Export says whether the results may go into caches for other machines.
	Export ExportHint
	// Group joins steps for viewers. May be nil.
	Group *progress.Group
	// Hidden steps do their work without appearing in progress.
	Hidden bool
}

// ExportHint is what a definition says about a step's results in caches for other machines.
type ExportHint uint8

// The hints.
const (
	ExportAsAsked ExportHint = iota
	ExportAlways             // also where only the outcome was asked for
	ExportNever              // as of a client's own files
)

// Edge is one output of a vertex.
type Edge struct {
	Vertex *Vertex
	Output int
}

// Op is the work of one vertex. An Op belongs to one build; its methods may be called from several goroutines, each of Key
// and Run at most once at a time. An Op that also has Close() error is closed when its build is closed and no other build waits
// for work that it does; so are those of all vertices before one that the build was asked for. Each vertex has an Op of its own.
//
// Run and a selector's Digest must not ask a solver for anything, except an op that builds a definition it finds in its inputs:
// it may ask for the vertices it made of that, and must bound how deep such definitions nest.
type Op interface {
	// Key returns the named parts that, together with the keys of the inputs, say what the op gives. A source pins here (a tag
	// to a digest, a ref to a commit, a directory to the digest of what was synced) and may wait for the network; any other op
	// is pure. Secrets, session ids and host paths never enter a key.
	Key(ctx context.Context, call Call) (Parts, error)
	// Selector says how input i enters the identity: nil for its whole identity, otherwise by the digest of what the op reads.
	Selector(i int) Selector
	// Run does the work and returns one result per output, which the caller then owns. A nil Result is an empty one. The
	// inputs stay the caller's and are valid until Run returns.
	Run(ctx context.Context, call Call, inputs []Result) ([]Result, error)
}

// Selector digests the part of an input that an op can see.
type Selector interface {
	// Key names what is selected, host-independently: equal keys on equal inputs give equal digests, so the digest is remembered.
	Key() string
	// Digest reads r, which is never nil and stays the caller's.
	Digest(ctx context.Context, call Call, r Result) (digest.Digest, error)
}

// Result is one owner's hold on an immutable outcome.
type Result interface {
	// Clone returns a further hold with its own owner.
	Clone() Result
	// Release gives the hold back. It is called exactly once per hold.
	Release() error
}

// Perishable is what a [Result] may be as well: Lost tells cheaply, and without an error while all is well, that what it holds turned
// out to be gone since. The solver then makes it again for whoever asks next.
type Perishable interface {
	Lost() error
}

// Call is what an op may use of those who wait for it now. Shared work captures nothing of one client: it asks again whenever
// it needs a session, and gets those of the builds that are waiting at that moment.
type Call interface {
	// Progress writes to every build that waits for this work; who joins late gets what was written before.
	Progress() progress.Writer
	// Lenders are the values the waiting builds were created with, see [Solver.NewBuild].
	Lenders() []any
}

// Store is the cache. All methods are safe for concurrent use. Look-ups that find nothing return false and no error; an error
// is a fault of the store, which the solver reports as a miss's reason and survives.
type Store interface {
	// Alias looks a promise up.
	Alias(ctx context.Context, p Promise) (Identity, bool, error)
	// PutAlias remembers that p is named i, replacing what was there.
	PutAlias(ctx context.Context, p Promise, i Identity) error
	// Results looks an identity up and takes hold of its results in one step; the caller owns them. A record of which anything
	// is gone is a miss.
	Results(ctx context.Context, i Identity) ([]Result, bool, error)
	// PutResults stores results under i, replacing what was there. They stay the caller's. Content digests remembered for i are
	// forgotten: they were those of former results, and an op need not give the same twice. The parts and the step are kept so
	// that a later miss can be explained.
	PutResults(ctx context.Context, i Identity, rec Record, results []Result) error
	// Forget drops the record of i: what it names turned out to be lost.
	Forget(ctx context.Context, i Identity) error
	// Content looks up a digest that a selector gave for one output of an identity.
	Content(ctx context.Context, i Identity, output int, selector string) (digest.Digest, bool, error)
	// PutContent remembers it.
	PutContent(ctx context.Context, i Identity, output int, selector string, d digest.Digest) error
}

// Record is what is kept beside results.
type Record struct {
	Step        digest.Digest
	Name        string
	Promise     Promise
	PromiseKey  Parts
	IdentityKey Parts
	// Duration is what making it took: what evicting it would cost.
	DurationMS int64
}

// LostError is returned by an op's Run or a selector when the bytes behind an input are gone, though its record was found. The
// solver forgets the record and makes the input again from its producers.
type LostError struct {
	Input int
	Err   error
}

func (e *LostError) Error() string { return fmt.Sprintf("input %d is lost: %v", e.Input, e.Err) }
func (e *LostError) Unwrap() error { return e.Err }

// VertexError says in which step a build failed.
type VertexError struct {
	Vertex *Vertex
	Err    error
}

func (e *VertexError) Error() string { return e.Err.Error() }
func (e *VertexError) Unwrap() error { return e.Err }
