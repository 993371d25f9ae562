package filesync

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/tonistiigi/fsutil/types"
)

// Sizes of the receiving window.
const (
	// inlineSize is how large a file may be to come along with its STAT.
	inlineSize = 32 << 10
	// wholeSize is up to which announced size a file is gathered before it is handed on, so that its true size is known then.
	wholeSize = 256 << 10
	// windowBytes is what files asked for ahead of the current one may hold in memory, by their announced sizes.
	windowBytes = 16 << 20
	// windowFiles is how many files are asked for at a time.
	windowFiles = 1024
	// inlineBytes is what contents that came with their STAT may hold in memory.
	inlineBytes = 32 << 20
	// streamBytes is how much of the current large file waits for its consumer before the stream does.
	streamBytes = 1 << 20
)

// receiver is the receiving side of the protocol as a state machine: handle takes packets, outgoing gives packets, next gives
// files to the consumer. Each is called from one goroutine.
//
// Why it cannot stall: handle waits only while the current file, the one next returned last, has streamBytes of data that its
// consumer has not taken. That consumer waits for nothing but the state machine, and for data only when there is none. Files
// behind the current one were asked for only if they fit into windowBytes as announced; what exceeds the announcement is
// dropped. Contents that come with a STAT are waited with only while nothing was asked for, so that all the consumer can need is
// here; when they are too many and something was asked for, they are thrown away and asked for in turn.
type receiver struct {
	want     func(*types.Stat, string) bool
	progress func(int64)
	limits   Limits
	check    *validator

	mu   sync.Mutex
	cond sync.Cond
	// The rest is guarded by mu.
	queue    []*incoming // entries not handed on yet, in order; queue[head:] counts
	head     int
	ask      int                  // place in queue of the first entry not considered for asking yet
	asked    map[uint32]*incoming // files asked for whose end has not come
	unasked  []uint32             // numbers asked for that outgoing has not sent yet
	inFlight int64                // sum of the costs of files asked for and not consumed
	inline   int64                // sum of the bytes that came inline and were not consumed
	current  *incoming
	nextID   uint32
	total    int64
	listed   bool // the empty STAT came
	consumed bool // next saw the end
	finSent  bool
	finished bool // FIN came
	tell     bool // err is to be told to the peer
	err      error
}

// incoming is an entry on its way from the peer to the consumer.
type incoming struct {
	id      uint32
	stat    *types.Stat
	hint    string
	wanted  bool
	waiting bool // asked for, end has not come
	size    int64
	cost    int64    // what it takes of the window
	inline  int64    // bytes that came inline
	got     int64    // bytes received
	chunks  [][]byte // received and not consumed
	held    int64    // bytes in chunks
	skip    bool     // nobody reads the rest
}

func newReceiver(req Request) *receiver {
	r := &receiver{want: req.Want, progress: req.Progress, limits: req.Limits.withDefaults(), asked: map[uint32]*incoming{}}
	r.check = newValidator(r.limits)
	r.cond.L = &r.mu
	return r
}

// end makes everything fail with err from now on. io.EOF is the stream's proper end, if FIN came before.
func (r *receiver) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail(err)
}

// refuse is end with an error that the peer is to blame for and should hear of. That there is something to tell and what it is
// must be seen together: outgoing may look at any moment.
func (r *receiver) refuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell = r.err == nil
	r.fail(err)
}

// fail is end with mu held.
func (r *receiver) fail(err error) {
	if r.err == nil {
		if errors.Is(err, io.EOF) && !r.finished {
			err = io.ErrUnexpectedEOF
		}
		r.err = err
	}
	r.cond.Broadcast()
}

// handle takes one packet.
func (r *receiver) handle(p *types.Packet) error {
	switch p.Type {
	case types.PACKET_STAT:
		return r.handleStat(p)
	case types.PACKET_DATA:
		return r.handleData(p)
	case types.PACKET_FIN:
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.finSent {
			return &ProtocolError{Reason: "FIN before it was asked for"}
		}
		r.finished = true
		return nil
	case types.PACKET_ERR:
		return fmt.Errorf("error from client: %s", clip(string(p.Data)))
	}
	return &ProtocolError{Reason: fmt.Sprintf("unexpected packet %v", p.Type)}
}

func (r *receiver) handleStat(p *types.Packet) error {
	if p.Stat == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.listed {
			return &ProtocolError{Reason: "end of list twice"}
		}
		r.listed = true
		r.check = nil // its memory is not needed any more
		r.cond.Broadcast()
		return nil
	}
	if r.check == nil {
		return &ProtocolError{Path: clip(p.Stat.Path), Reason: "entry after the end of the list"}
	}
	in := &incoming{stat: p.Stat, size: p.Stat.Size}
	if h, ok := p.Stat.Xattrs[hintXattr]; ok {
		in.hint = string(h)
		delete(p.Stat.Xattrs, hintXattr)
	}
	if err := r.check.check(p.Stat); err != nil {
		return err
	}
	in.wanted = hasContent(p.Stat) && (r.want == nil || r.want(p.Stat, in.hint))
	r.mu.Lock()
	defer r.mu.Unlock()
	in.id = r.nextID
	r.nextID++
	if len(p.Data) > 0 {
		if !in.wanted || r.want != nil || len(p.Data) > inlineSize {
			return &ProtocolError{Path: clip(p.Stat.Path), Reason: "contents that were not asked for"}
		}
		if err := r.takeInline(in, p.Data); err != nil {
			return err
		}
	}
	r.queue = append(r.queue, in)
	r.advance()
	r.cond.Broadcast()
	return nil
}

// takeInline takes contents that came with a STAT, if there is room. mu is held.
func (r *receiver) takeInline(in *incoming, data []byte) error {
	n := int64(len(data))
	if err := r.count(n); err != nil {
		return err
	}
	for r.inline > inlineBytes && len(r.asked) == 0 && r.err == nil {
		r.cond.Wait()
	}
	if r.inline > inlineBytes {
		return nil
	}
	in.chunks, in.got, in.held, in.size, in.inline = [][]byte{data}, n, n, n, n
	r.inline += n
	return nil
}

// hasContent tells whether DATA can be asked for an entry: both ends of the protocol must agree on this.
func hasContent(st *types.Stat) bool { return fs.FileMode(st.Mode).IsRegular() && st.Linkname == "" }

// count adds received bytes. mu is held.
func (r *receiver) count(n int64) error {
	r.total += n
	if r.limits.Total > 0 && r.total > r.limits.Total {
		return &ProtocolError{Reason: fmt.Sprintf("more than %d bytes of file contents", r.limits.Total)}
	}
	if r.progress != nil {
		r.progress(n)
	}
	return nil
}

func (r *receiver) handleData(p *types.Packet) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	in, ok := r.asked[p.ID]
	if !ok {
		return &ProtocolError{Reason: fmt.Sprintf("contents of entry %d, which were not asked for", p.ID)}
	}
	if len(p.Data) == 0 {
		return r.endOfFile(in)
	}
	n := int64(len(p.Data))
	if err := r.count(n); err != nil {
		return err
	}
	in.got += n
	// Only what was announced counts: a file that grows while it is read is taken as it was when it was listed. A small one may
	// take what fits the window anyway.
	if room := max(in.size, wholeSize) - (in.got - n); room < n {
		p.Data = p.Data[:max(room, 0)]
	}
	if in.skip || len(p.Data) == 0 {
		return nil
	}
	for in == r.current && in.held >= streamBytes && !in.skip && r.err == nil {
		r.cond.Wait()
	}
	if r.err != nil {
		return r.err
	}
	if !in.skip {
		in.chunks = append(in.chunks, p.Data)
		in.held += int64(len(p.Data))
	}
	r.cond.Broadcast()
	return nil
}

func (r *receiver) endOfFile(in *incoming) error {
	delete(r.asked, in.id)
	in.waiting = false
	whole := in.size <= wholeSize
	if (in.size > 0 && in.got == 0) || (!whole && in.got < in.size) {
		return &ChangedError{Path: in.stat.Path, Want: in.size, Got: in.got}
	}
	r.advance()
	r.cond.Broadcast()
	return nil
}

// advance asks for further files as far as the window allows, and wakes who sends the requests. mu is held.
func (r *receiver) advance() {
	for ; r.ask < len(r.queue); r.ask++ {
		in := r.queue[r.ask]
		if !in.wanted || in.inline > 0 {
			continue
		}
		cost := max(in.size, 512)
		first := r.ask == r.head && r.current == nil
		if !first && (len(r.asked) >= windowFiles || r.inFlight+cost > windowBytes) {
			return
		}
		r.inFlight += cost
		in.cost = cost
		in.waiting = true
		r.asked[in.id] = in
		r.unasked = append(r.unasked, in.id)
		r.cond.Broadcast()
	}
}

// outgoing waits for the next packet to send; false when there is none any more.
func (r *receiver) outgoing() (*types.Packet, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.tell:
			r.tell = false
			return &types.Packet{Type: types.PACKET_ERR, Data: []byte(r.err.Error())}, true
		case r.err != nil || r.finSent:
			return nil, false
		case len(r.unasked) > 0:
			id := r.unasked[0]
			r.unasked = r.unasked[1:]
			return &types.Packet{Type: types.PACKET_REQ, ID: id}, true
		case r.consumed:
			r.finSent = true
			return &types.Packet{Type: types.PACKET_FIN}, true
		}
		r.cond.Wait()
	}
}
