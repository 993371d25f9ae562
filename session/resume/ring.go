package resume

// ring holds the bytes from base to end of a stream. It grows as needed, and never above what its user puts into it.
type ring struct {
	buf       []byte // a power of two long, or empty
	base, end uint64
}

const smallestRing = 4 << 10

func (r *ring) len() int { return int(r.end - r.base) }

// add appends a copy of p.
func (r *ring) add(p []byte) {
	r.grow(r.len() + len(p))
	for len(p) > 0 {
		n := copy(r.buf[r.at(r.end):], p)
		r.end += uint64(n)
		p = p[n:]
	}
}

// copyFrom copies what is there from offset on, which must be between base and end, and returns how much it was.
func (r *ring) copyFrom(offset uint64, p []byte) int {
	total := 0
	for offset < r.end && len(p) > 0 {
		from := r.at(offset)
		n := copy(p, r.buf[from:min(len(r.buf), from+int(r.end-offset))])
		offset += uint64(n)
		p = p[n:]
		total += n
	}
	return total
}

// drop forgets everything before offset.
func (r *ring) drop(offset uint64) {
	r.base = max(r.base, min(offset, r.end))
}

// shrink gives an empty ring's memory back.
func (r *ring) shrink() {
	if r.len() == 0 {
		r.buf = nil
	}
}

func (r *ring) at(offset uint64) int { return int(offset & uint64(len(r.buf)-1)) }

func (r *ring) grow(want int) {
	if want <= len(r.buf) {
		return
	}
	size := max(smallestRing, len(r.buf))
	for size < want {
		size *= 2
	}
	bigger := ring{buf: make([]byte, size), base: r.base, end: r.base}
	for bigger.end < r.end {
		from := r.at(bigger.end)
		part := r.buf[from:min(len(r.buf), from+int(r.end-bigger.end))]
		n := copy(bigger.buf[bigger.at(bigger.end):], part)
		bigger.end += uint64(n)
	}
	*r = bigger
}
