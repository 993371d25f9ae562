//go:build unix

package filesync

import (
	"errors"
	"io"
	"os"
	"time"
)

// errChanging says that a file was written to while it was read, so that what was read may be of no one state of it.
var errChanging = errors.New("the file was changed while it was read; leave it out by .dockerignore, or build when nothing writes to it")

// clockStep is more than the steps in which kernels stamp changes of files.
const clockStep = 20 * time.Millisecond

// steadyFile is a file that ends with errChanging instead of io.EOF if it was changed since it was opened.
type steadyFile struct {
	*os.File
	opened os.FileInfo
}

// steady takes over the file. It waits until a change would show: one that follows another within a step of the clock has the same time.
func steady(f *os.File) (*steadyFile, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if age := time.Since(changed(fi)); age >= 0 && age < clockStep {
		time.Sleep(clockStep - age)
		if fi, err = f.Stat(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &steadyFile{f, fi}, nil
}

func (f *steadyFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	now, serr := f.Stat()
	if serr != nil {
		return n, serr
	}
	if now.Size() != f.opened.Size() || !now.ModTime().Equal(f.opened.ModTime()) || !changed(now).Equal(changed(f.opened)) {
		return n, errChanging
	}
	return n, err
}

// WriteTo is not the file's own, which would not look.
func (f *steadyFile) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{f})
}
