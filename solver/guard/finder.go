package guard

// Finder looks for values in a stream. It is an [io.Writer] that never fails, for one goroutine at a time.
type Finder struct {
	m       *Matcher
	allowed func(string) bool
	tail    []byte
	found   string
}

// NewFinder returns a Finder that lets pass what allowed says; nil lets nothing pass.
func (m *Matcher) NewFinder(allowed func(id string) bool) *Finder {
	return &Finder{m: m, allowed: allowed}
}

// Write takes more of the stream.
func (f *Finder) Write(p []byte) (int, error) {
	if f.m == nil || f.found != "" {
		return len(p), nil
	}
	keep := f.m.longest - 1
	if len(f.tail) > 0 {
		// What lies across the border, and nothing that lies within p alone but for its beginning.
		f.tail = append(f.tail, p[:min(len(p), keep)]...)
		if f.found = f.m.Find(f.tail, f.allowed); f.found != "" {
			return len(p), nil
		}
	}
	if f.found = f.m.Find(p, f.allowed); f.found != "" {
		return len(p), nil
	}
	switch {
	case len(p) >= keep:
		f.tail = append(f.tail[:0], p[len(p)-keep:]...)
	case len(f.tail) == 0:
		f.tail = append(f.tail, p...)
	case len(f.tail) > keep:
		f.tail = append(f.tail[:0], f.tail[len(f.tail)-keep:]...)
	}
	return len(p), nil
}

// Found returns the id of the first value that was found, "" for none.
func (f *Finder) Found() string { return f.found }

// Reset begins a new stream. What was found is forgotten.
func (f *Finder) Reset() { f.tail, f.found = f.tail[:0], "" }
