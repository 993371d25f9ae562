package local

import (
	"crypto/sha256"
	"hash"
	"io"
)

// tee hashes and counts what is read through it.
type tee struct {
	r io.Reader
	h hash.Hash
	n int64
}

func newTee(r io.Reader) *tee { return &tee{r: r, h: sha256.New()} }

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.h.Write(p[:n]) // never fails
	t.n += int64(n)
	return n, err
}
