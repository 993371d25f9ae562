package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// text is an endless text of made-up words, which compresses like text. The same seed gives the same text.
type text struct {
	random *rand.ChaCha8
	words  []string
	left   []byte
}

func newText(seed uint64) *text {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	t := &text{random: rand.NewChaCha8(key)}
	source := rand.New(t.random)
	for range 4096 {
		word := make([]byte, 2+source.IntN(9))
		for i := range word {
			word[i] = byte('a' + source.IntN(26))
		}
		t.words = append(t.words, string(word)+" ")
	}
	return t
}

func (t *text) Read(p []byte) (int, error) {
	for len(t.left) < len(p) {
		for bits, i := t.random.Uint64(), 0; i < 5; i, bits = i+1, bits>>12 {
			t.left = append(t.left, t.words[bits&4095]...)
		}
	}
	n := copy(p, t.left)
	t.left = append(t.left[:0], t.left[n:]...)
	return n, nil
}

// makeTree fills a new directory with files of up to 7.8 KB, a dozen in each of its directories.
func makeTree(dir string, files int, seed uint64) error {
	t := newText(seed)
	sizes := rand.New(rand.NewPCG(seed, 1))
	buf := make([]byte, 7800)
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("d%02d/d%04d", i/12/40, i/12))
		if i%12 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		content := buf[:sizes.IntN(len(buf))]
		if _, err := t.Read(content); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%05d.txt", i)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeFile writes a file of some size.
func makeFile(path string, size int64, seed uint64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err := io.CopyN(w, newText(seed), size); err != nil {
		return err
	}
	return w.Flush()
}

// alter changes the first bytes of a file, so that it is another.
func alter(path string, rep int) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = fmt.Fprintf(f, "repetition %06d\n", rep)
	return err
}

// makeLayer writes a gzipped tar of files of 200 KB below a directory named by the seed.
func makeLayer(path string, size int64, seed uint64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z := gzip.NewWriter(f)
	tw := tar.NewWriter(z)
	t := newText(seed)
	const each = 200 << 10
	for i := range size/each + 1 {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("data%d/file%d", seed, i), Mode: 0o644, Size: each}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.CopyN(tw, t, each); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), z.Close())
}

// statTree asks for the attributes of everything below a directory.
func statTree(dir string) error {
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
}

// lines repeats a line of a Dockerfile, whose %d is counted.
func lines(n int, line string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(line, "%d", fmt.Sprint(i)))
	}
	return b.String()
}
