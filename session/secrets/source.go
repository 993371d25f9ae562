package secrets

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// Source says where on the client a secret comes from.
type Source struct {
	ID string
	// File is a path, Env the name of an environment variable. If both are empty, the variable named like the id is taken if it is
	// set, else the file named like the id. If both are given, the variable is.
	File, Env string
}

// Parse reads the value of a --secret flag: comma-separated id=, src= (or source=), env= and type= (file or env), with CSV quoting.
func Parse(value string) (Source, error) {
	r := csv.NewReader(strings.NewReader(value))
	fields, err := r.Read()
	if err != nil && !errors.Is(err, io.EOF) {
		return Source{}, fmt.Errorf("failed to parse csv secret: %w", err)
	}
	var s Source
	kind := ""
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return Source{}, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
		switch key = strings.ToLower(key); key {
		case "type":
			if value != "file" && value != "env" {
				return Source{}, fmt.Errorf("unsupported secret type %q", value)
			}
			kind = value
		case "id":
			s.ID = value
		case "source", "src":
			s.File = value
		case "env":
			s.Env = value
		default:
			return Source{}, fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	if kind == "env" && s.Env == "" {
		s.Env, s.File = s.File, ""
	}
	return s, nil
}

// ParseAll reads the values of all --secret flags of a command.
func ParseAll(values []string) ([]Source, error) {
	sources := make([]Source, 0, len(values))
	for _, v := range values {
		s, err := Parse(v)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// NewStore returns a store of these sources. A file that is missing or too big is an error now, before anything is built. Values are
// read when they are asked for. Of two sources with one id the later counts.
func NewStore(sources []Source) (Store, error) {
	st := make(sourceStore, len(sources))
	for _, s := range sources {
		if s.ID == "" {
			return nil, errors.New("secret missing ID")
		}
		if s.Env == "" && s.File == "" {
			if _, ok := os.LookupEnv(s.ID); ok {
				s.Env = s.ID
			} else {
				s.File = s.ID
			}
		}
		entry := &stored{Source: s}
		if s.File != "" {
			fi, err := os.Stat(s.File)
			if err != nil {
				return nil, fmt.Errorf("failed to stat %s: %w", s.File, err)
			}
			if fi.Size() > MaxSize {
				return nil, fmt.Errorf("secret %s too big. max size %dKiB", s.ID, MaxSize>>10)
			}
			entry.once = fi.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeCharDevice) != 0
		}
		st[s.ID] = entry
	}
	return st, nil
}

// sourceStore has the sources by id.
type sourceStore map[string]*stored

// stored is a source that was looked at.
type stored struct {
	Source
	// once says that it can be read only once, as what a shell makes of <(command). What it gave is kept for the next who asks.
	once bool

	mu    sync.Mutex
	value []byte // of a source that was read; guarded by mu
	read  bool   // guarded by mu
}

// Secret implements Store. A variable that is not set is an empty secret, as it is for docker.
func (st sourceStore) Secret(_ context.Context, id string) ([]byte, error) {
	s, ok := st[id]
	switch {
	case !ok:
		return nil, ErrNotFound
	case s.Env != "":
		return []byte(os.Getenv(s.Env)), nil
	case !s.once:
		return readFile(s.File)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read {
		return s.value, nil
	}
	value, err := readFile(s.File)
	if err == nil {
		s.value, s.read = value, true
	}
	return value, err
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	// One byte more than allowed, so that a file that has grown is refused and not cut off.
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}
