package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil/types"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a peer that says what it was told to say and nothing else. It ends with io.EOF, or hangs if it is to.
type script struct {
	packets []*types.Packet
	sent    chan *types.Packet // what the other side said
	hang    <-chan struct{}
}

func newScript(packets ...*types.Packet) *script {
	return &script{packets: packets, sent: make(chan *types.Packet, 1<<16)}
}

func (s *script) Recv() (*types.Packet, error) {
	if len(s.packets) == 0 {
		if s.hang != nil {
			<-s.hang
			return nil, context.Canceled
		}
		return nil, io.EOF
	}
	p := s.packets[0]
	s.packets = s.packets[1:]
	return p, nil
}

func (s *script) Send(p *types.Packet) error { s.sent <- p; return nil }
func (s *script) CloseSend() error           { return nil }

func (s *script) SendMsg(m any) error { return s.Send(m.(*types.Packet)) }
func (s *script) RecvMsg(m any) error {
	p, err := s.Recv()
	if err == nil {
		b, merr := p.MarshalVT()
		if merr != nil {
			return merr
		}
		return m.(*types.Packet).UnmarshalVT(b)
	}
	return err
}

func stat(p string, mode fs.FileMode) *types.Packet {
	return &types.Packet{Type: types.PACKET_STAT, Stat: &types.Stat{Path: p, Mode: uint32(mode)}}
}

func file(p string, size int64) *types.Packet {
	s := stat(p, 0o644)
	s.Stat.Size = size
	return s
}

func link(p, target string, mode fs.FileMode) *types.Packet {
	s := stat(p, mode)
	s.Stat.Linkname = target
	return s
}

func data(id uint32, b string) *types.Packet {
	return &types.Packet{Type: types.PACKET_DATA, ID: id, Data: []byte(b)}
}

const dirMode = fs.ModeDir | 0o755

var (
	endOfList = &types.Packet{Type: types.PACKET_STAT}
	fin       = &types.Packet{Type: types.PACKET_FIN}
)

func TestHostileSender(t *testing.T) {
	long := strings.Repeat("a", 5000)
	for name, c := range map[string]struct {
		packets []*types.Packet
		path    string // of the ProtocolError; "-" for any other error
	}{
		"dot dot":                {[]*types.Packet{file("..", 0)}, ".."},
		"leads out":              {[]*types.Packet{file("../x", 0)}, "../x"},
		"leads out inside":       {[]*types.Packet{stat("a", dirMode), file("a/../../x", 0)}, "a/../../x"},
		"absolute":               {[]*types.Packet{file("/etc/passwd", 0)}, "/etc/passwd"},
		"unclean":                {[]*types.Packet{stat("a", dirMode), file("a//b", 0)}, "a//b"},
		"empty":                  {[]*types.Packet{file("", 0)}, ""},
		"root":                   {[]*types.Packet{stat(".", dirMode)}, "."},
		"NUL":                    {[]*types.Packet{file("a\x00b", 0)}, "a\x00b"},
		"long":                   {[]*types.Packet{file(long, 0)}, clip(long)},
		"no parent":              {[]*types.Packet{file("a/b", 0)}, "a/b"},
		"parent is a file":       {[]*types.Packet{file("a", 0), file("a/b", 0)}, "a/b"},
		"parent is a symlink":    {[]*types.Packet{link("a", "/etc", fs.ModeSymlink), file("a/b", 0)}, "a/b"},
		"parent is over":         {[]*types.Packet{stat("a", dirMode), stat("b", dirMode), file("a/x", 0)}, "a/x"},
		"unsorted":               {[]*types.Packet{file("b", 0), file("a", 0)}, "a"},
		"twice":                  {[]*types.Packet{file("a", 0), file("a", 0)}, "a"},
		"negative size":          {[]*types.Packet{file("a", -1)}, "a"},
		"unknown type":           {[]*types.Packet{stat("a", fs.ModeIrregular)}, "a"},
		"two types":              {[]*types.Packet{stat("a", fs.ModeDir|fs.ModeSymlink)}, "a"},
		"empty symlink":          {[]*types.Packet{stat("a", fs.ModeSymlink)}, "a"},
		"hard link to nothing":   {[]*types.Packet{link("a", "b", 0o644)}, "a"},
		"hard link outside":      {[]*types.Packet{link("a", "/etc/shadow", 0o644)}, "a"},
		"after the end":          {[]*types.Packet{endOfList, file("a", 0)}, "a"},
		"end twice":              {[]*types.Packet{endOfList, endOfList}, ""},
		"data not asked for":     {[]*types.Packet{data(0, "x")}, ""},
		"data of a directory":    {[]*types.Packet{stat("a", dirMode), data(0, "x")}, ""},
		"request from a sender":  {[]*types.Packet{{Type: types.PACKET_REQ}}, ""},
		"unknown packet":         {[]*types.Packet{{Type: 77}}, ""},
		"early FIN":              {[]*types.Packet{fin}, ""},
		"hangs up":               {[]*types.Packet{file("a", 1)}, "-"},
		"hangs up after listing": {[]*types.Packet{endOfList}, "-"},
		"says so":                {[]*types.Packet{{Type: types.PACKET_ERR, Data: []byte("sorry")}}, "-"},
		"entries":                {[]*types.Packet{file("a", 0), file("b", 0), file("c", 0), file("d", 0), file("e", 0)}, "e"},
		"xattrs": {[]*types.Packet{{Type: types.PACKET_STAT, Stat: &types.Stat{Path: "a", Mode: 0o644,
			Xattrs: map[string][]byte{"user.x": make([]byte, 1<<20)}}}}, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			tr := startTransfer(Request{Dir: "d", Limits: Limits{Entries: 4}}, newScript(c.packets...), cancel)
			defer tr.Close()
			_, err := collect(ctx, tr)
			var p *ProtocolError
			switch {
			case err == nil:
				t.Fatal("accepted")
			case c.path == "-":
				if errors.As(err, &p) {
					t.Errorf("error %v", err)
				}
			case !errors.As(err, &p) || p.Path != c.path:
				t.Errorf("error %v", err)
			}
			if _, again := tr.Next(ctx); !errors.Is(again, err) {
				t.Errorf("then %v", again)
			}
		})
	}
}

func TestChangedFiles(t *testing.T) {
	big := strings.Repeat("b", wholeSize+1)
	for name, c := range map[string]struct {
		announced int64
		sent      string
		want      string // "-" for a ChangedError
	}{
		"small grew":   {3, "abcdef", "abcdef"},
		"small shrank": {6, "abc", "abc"},
		"small gone":   {6, "", "-"},
		"big grew":     {wholeSize + 1, big + "more", big},
		"big shrank":   {wholeSize + 2, big, "-"},
		"was empty":    {0, "now not", "now not"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			packets := []*types.Packet{file("f", c.announced), endOfList}
			for rest := c.sent; rest != ""; {
				n := min(len(rest), 100_000)
				packets = append(packets, data(0, rest[:n]))
				rest = rest[n:]
			}
			packets = append(packets, data(0, ""))
			hang := make(chan struct{})
			s := newScript(packets...)
			s.hang = hang
			_, cancel := context.WithCancel(t.Context())
			tr := startTransfer(Request{Dir: "d"}, s, cancel)
			f, err := tr.Next(t.Context())
			var got []byte
			if err == nil {
				got, err = io.ReadAll(f.Content)
			}
			var changed *ChangedError
			if c.want == "-" {
				if !errors.As(err, &changed) || changed.Path != "f" {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			} else if err != nil || string(got) != c.want || f.Stat.Size != int64(len(c.want)) {
				t.Errorf("%d bytes of %d, %v", len(got), len(c.want), err)
			}
			close(hang)
			tr.Close()
		})
	}
}

func TestTotalLimit(t *testing.T) {
	dir := writeTree(t, map[string]string{"a": strings.Repeat("a", 600), "b": strings.Repeat("b", 600)})
	for _, inline := range []bool{true, false} {
		c := connect(t, NewProvider(map[string]Dir{"context": {Path: dir}}, ProviderOptions{}))
		req := Request{Dir: "context", Limits: Limits{Total: 1000}}
		if !inline {
			req.Want = func(*types.Stat, string) bool { return true }
		}
		tr, err := Sync(t.Context(), c, req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := collect(t.Context(), tr); err == nil || !strings.Contains(err.Error(), "more than 1000 bytes") {
			t.Errorf("error %v", err)
		}
		tr.Close()
	}
}

func TestCancel(t *testing.T) {
	hang := make(chan struct{})
	s := newScript(file("a", 10))
	s.hang = hang
	ctx, cancel := context.WithCancel(t.Context())
	tr := startTransfer(Request{Dir: "d"}, s, func() {})
	go func() {
		<-s.sent // the request for a
		cancel()
	}()
	if _, err := tr.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(hang)
	tr.Close()
}

// The window holds whatever order a peer answers in, and nothing is lost when the consumer is slow to start.
func TestWindow(t *testing.T) {
	const n = 3000
	var packets []*types.Packet
	for i := range n {
		packets = append(packets, file(fmt.Sprintf("f%04d", i), 16<<10))
	}
	packets = append(packets, endOfList)
	s := &answering{script: newScript(packets...), in: make(chan *types.Packet, n)}
	tr := startTransfer(Request{Dir: "d"}, s, func() { s.once.Do(func() { close(s.in) }) })
	defer tr.Close()
	for i := range n {
		f, err := tr.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f.Content)
		if err != nil || len(b) != 16<<10 || string(b[:4]) != fmt.Sprintf("%04d", i) {
			t.Fatalf("file %d: %d bytes, %v", i, len(b), err)
		}
	}
	if _, err := tr.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if s.most > windowBytes/(16<<10) {
		t.Errorf("%d files were asked for at a time", s.most)
	}
}

// answering gives what is asked for, the last request of those there first.
type answering struct {
	*script
	in      chan *types.Packet
	once    sync.Once // for closing in
	pending []uint32
	most    int
	ended   bool
}

func (a *answering) Send(p *types.Packet) error { a.in <- p; return nil }

func (a *answering) Recv() (*types.Packet, error) {
	if len(a.packets) > 0 {
		return a.script.Recv()
	}
	if a.ended {
		return nil, io.EOF
	}
	for len(a.pending) == 0 || len(a.in) > 0 {
		p, ok := <-a.in
		if !ok {
			return nil, context.Canceled
		}
		if p.Type == types.PACKET_FIN {
			a.ended = true
			return fin, nil
		}
		a.pending = append(a.pending, p.ID)
	}
	a.most = max(a.most, len(a.pending))
	id := a.pending[len(a.pending)-1]
	a.pending = a.pending[:len(a.pending)-1]
	a.packets = []*types.Packet{data(id, "")}
	return data(id, fmt.Sprintf("%04d", id)+strings.Repeat("x", 16<<10-4)), nil
}

// A receiver can ask for files only, each once.
func TestHostileReceiver(t *testing.T) {
	dir := writeTree(t, map[string]string{"a/f": "f"})
	fs, err := newHostFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	req := func(id uint32) *types.Packet { return &types.Packet{Type: types.PACKET_REQ, ID: id} }
	for name, packets := range map[string][]*types.Packet{
		"directory": {req(0)}, "nothing": {req(99)}, "twice": {req(1), req(1)}, "data": {data(0, "x")}, "hang up": {},
	} {
		s := newScript(packets...)
		if err := newSender(fsTree{fs, fs}, s).run(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A file that vanishes while its directory is walked takes only itself out of the sync.
func TestVanishingFile(t *testing.T) {
	dir := writeTree(t, map[string]string{"a": "a", "b": "b", "c": "c"})
	src, err := newHostFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	err = fsTree{src, src}.Walk(t.Context(), func(st *types.Stat) error {
		seen = append(seen, st.Path)
		if st.Path == "a" {
			return os.Remove(filepath.Join(dir, "b"))
		}
		return nil
	})
	if err != nil || strings.Join(seen, " ") != "a c" {
		t.Errorf("%v, %v", seen, err)
	}
}

// Sockets are not sent.
func TestSocketStaysBehind(t *testing.T) {
	dir := writeTree(t, map[string]string{"a": "a", "z": "z"})
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	t.Chdir(dir) // names of sockets are short
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: "socket"}); err != nil {
		t.Fatal(err)
	}
	c := connect(t, NewProvider(map[string]Dir{"context": {Path: dir}}, ProviderOptions{}))
	tr, err := Sync(t.Context(), c, Request{Dir: "context"})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	got, err := collect(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	if _, sent := got["socket"]; sent || len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestUnreadableFile(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root can read everything")
	}
	dir := writeTree(t, map[string]string{"a": "a"})
	if err := os.Chmod(filepath.Join(dir, "a"), 0); err != nil {
		t.Fatal(err)
	}
	c := connect(t, NewProvider(map[string]Dir{"context": {Path: dir}}, ProviderOptions{}))
	tr, err := Sync(t.Context(), c, Request{Dir: "context"})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if _, err := collect(t.Context(), tr); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("error %v", err)
	}
}

// FuzzReceiver feeds packets to the daemon's side and to the client's target; nothing may panic, hang, or be written outside.
func FuzzReceiver(f *testing.F) {
	seed := func(packets ...*types.Packet) {
		var b []byte
		for _, p := range packets {
			m, err := p.MarshalVT()
			if err != nil {
				f.Fatal(err)
			}
			b = append(b, byte(len(m)>>8), byte(len(m)))
			b = append(b, m...)
		}
		f.Add(b)
	}
	seed(stat("a", dirMode), file("a/b", 3), link("c", "a", fs.ModeSymlink), endOfList, data(1, "abc"), data(1, ""), fin)
	seed(file("a", 1), link("b", "a", 0o644), endOfList, data(0, ""))
	seed(file("../a", 1))
	seed(&types.Packet{Type: types.PACKET_STAT, Stat: &types.Stat{Path: "a", Mode: 0o644, Size: 2}, Data: []byte("xy")}, endOfList, fin)
	f.Fuzz(func(t *testing.T, in []byte) {
		parse := func() []*types.Packet {
			var packets []*types.Packet
			for b := in; len(b) >= 2; {
				n := int(b[0])<<8 | int(b[1])
				b = b[2:]
				n = min(n, len(b))
				p := new(types.Packet)
				if p.UnmarshalVT(b[:n]) != nil {
					return packets
				}
				packets = append(packets, p)
				b = b[n:]
			}
			return packets
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		tr := startTransfer(Request{Dir: "d", Limits: Limits{Total: 1 << 20}}, newScript(parse()...), cancel)
		_, err := collect(ctx, tr)
		tr.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("hangs")
		}
		base := t.TempDir()
		_ = receiveTree(t.Context(), newScript(parse()...), Target{Dir: filepath.Join(base, "in")})
		entries, err := os.ReadDir(base)
		if err != nil || len(entries) > 1 {
			t.Fatalf("%v, %v", entries, err)
		}
	})
}
