package resume

import (
	"io"
	"net"
	"path/filepath"
	"testing"
)

// BenchmarkStream compares a Conn over a unix socket with the socket alone.
func BenchmarkStream(b *testing.B) {
	pair := func(b *testing.B) (near, far net.Conn) {
		l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		if near, err = net.Dial("unix", l.Addr().String()); err != nil {
			b.Fatal(err)
		}
		if far, err = l.Accept(); err != nil {
			b.Fatal(err)
		}
		return near, far
	}
	run := func(b *testing.B, near, far net.Conn) {
		p := make([]byte, 256<<10)
		b.SetBytes(int64(len(p)))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.CopyN(io.Discard, far, int64(len(p))*int64(b.N))
		}()
		b.ResetTimer()
		for range b.N {
			if _, err := near.Write(p); err != nil {
				b.Fatal(err)
			}
		}
		<-done
	}
	b.Run("socket", func(b *testing.B) {
		near, far := pair(b)
		defer near.Close()
		defer far.Close()
		run(b, near, far)
	})
	b.Run("resumable", func(b *testing.B) {
		nearPath, farPath := pair(b)
		near, far := newConn(usualTiming(), nearPath, ""), newConn(usualTiming(), farPath, "")
		for _, end := range []struct {
			c    *Conn
			path net.Conn
		}{{near, nearPath}, {far, farPath}} {
			go func() { _ = end.c.serve(end.path, newReader(end.path, usualTiming()), 0) }()
		}
		run(b, near, far)
		_ = near.Close()
		<-far.ended
	})
}
