package guard

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// MinFind is the length, in bytes, from which on a value is searched for.
const MinFind = 8

const (
	wordLen = 4
	// maxStride bounds the distance of probes, and with it how many words of each form are in the table.
	maxStride = 13
	probeLog  = 18
)

// Matcher finds the values it was made of. It is immutable and safe for concurrent use. A nil Matcher finds nothing.
type Matcher struct {
	ids      []string
	patterns []pattern
	short    []pattern // of short values
	longest  int
	// stride is the distance of probes: the shortest of patterns holds a whole word at one of so many offsets.
	stride int
	// bits has one set for every word that is worth comparing, by its hash; words leads from it to the patterns.
	bits  [1 << probeLog / 64]uint64
	words map[uint32][]word
	// begin has one set for every two bytes that a pattern begins with, sorted orders all patterns.
	begin  [1 << 16 / 64]uint64
	single [256]bool
	sorted [][]byte
	print  [32]byte
}

type pattern struct {
	text   []byte
	id     int
	refuse bool
}

// word says that a pattern has a word at an offset.
type word struct {
	pattern, offset int
}

func newMatcher(values []*value) *Matcher {
	if len(values) == 0 {
		return nil
	}
	m := &Matcher{words: map[uint32][]word{}}
	ids := map[string]int{}
	seen := map[string]bool{}
	for _, v := range values {
		id, ok := ids[v.id]
		if !ok {
			id = len(m.ids)
			ids[v.id] = id
			m.ids = append(m.ids, v.id)
		}
		for _, f := range v.forms {
			key := fmt.Sprintf("%t %s\x00%s", v.search, v.id, f.text)
			if seen[key] {
				continue
			}
			seen[key] = true
			p := pattern{text: f.text, id: id, refuse: f.refuse && v.search}
			if len(f.text) < MinFind {
				m.short = append(m.short, p)
			} else {
				m.patterns = append(m.patterns, p)
			}
			m.longest = max(m.longest, len(f.text))
		}
	}
	m.index()
	m.print = fingerprint(values)
	return m
}

func (m *Matcher) index() {
	m.stride = maxStride
	for _, p := range m.patterns {
		m.stride = min(m.stride, len(p.text)-wordLen+1)
	}
	for i, p := range m.patterns {
		for off := range m.stride {
			w := binary.LittleEndian.Uint32(p.text[off:])
			h := hash(w)
			m.bits[h>>6] |= 1 << (h & 63)
			m.words[w] = append(m.words[w], word{i, off})
		}
	}
	for _, p := range slices.Concat(m.patterns, m.short) {
		m.single[p.text[0]] = true
		if len(p.text) > 1 {
			w := binary.LittleEndian.Uint16(p.text)
			m.begin[w>>6] |= 1 << (w & 63)
		}
		m.sorted = append(m.sorted, p.text)
	}
	slices.SortFunc(m.sorted, bytes.Compare)
}

func hash(w uint32) uint32 { return w * 0x9E3779B1 >> (32 - probeLog) }

// each calls found for every pattern of at least MinFind bytes in data, until it returns false.
func (m *Matcher) each(data []byte, found func(p *pattern, at int) bool) {
	for i := 0; i+wordLen <= len(data); i += m.stride {
		w := binary.LittleEndian.Uint32(data[i:])
		h := hash(w)
		if m.bits[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		for _, hit := range m.words[w] {
			p, at := &m.patterns[hit.pattern], i-hit.offset
			if at >= 0 && len(data)-at >= len(p.text) && bytes.Equal(data[at:at+len(p.text)], p.text) && !found(p, at) {
				return
			}
		}
	}
}

// span is a part of data: from start up to end.
type span struct{ start, end int }

// spans lists where values are in data, in order; those that touch are one.
func (m *Matcher) spans(data []byte, short bool) []span {
	var list []span
	m.each(data, func(p *pattern, at int) bool {
		list = append(list, span{at, at + len(p.text)})
		return true
	})
	if short {
		for _, p := range m.short {
			for from := 0; ; {
				i := bytes.Index(data[from:], p.text)
				if i < 0 {
					break
				}
				list = append(list, span{from + i, from + i + len(p.text)})
				from += i + 1
			}
		}
	}
	return merged(list)
}

func merged(list []span) []span {
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	out := list[:0]
	for _, s := range list {
		if n := len(out); n > 0 && s.start <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, s.end)
			continue
		}
		out = append(out, s)
	}
	return out
}

// begun is where in data the longest tail begins that a value may begin with; len(data) if none does.
func (m *Matcher) begun(data []byte) int {
	for i := max(0, len(data)-m.longest+1); i < len(data); i++ {
		if i == len(data)-1 {
			if m.single[data[i]] && m.beginsWith(data[i:]) {
				return i
			}
			continue
		}
		w := binary.LittleEndian.Uint16(data[i:])
		if m.begin[w>>6]&(1<<(w&63)) != 0 && m.beginsWith(data[i:]) {
			return i
		}
	}
	return len(data)
}

// beginsWith tells whether a pattern begins with tail and is longer.
func (m *Matcher) beginsWith(tail []byte) bool {
	i, _ := slices.BinarySearchFunc(m.sorted, tail, bytes.Compare)
	for ; i < len(m.sorted) && bytes.HasPrefix(m.sorted[i], tail); i++ {
		if len(m.sorted[i]) > len(tail) {
			return true
		}
	}
	return false
}

// Fingerprint names the values that are searched for without telling them, within this process. It is the same for the same values.
func (m *Matcher) Fingerprint() [32]byte {
	if m == nil {
		return [32]byte{}
	}
	return m.print
}

// Find returns the id of a value that is in data and that allowed does not let pass; "" if there is none. A nil allowed lets
// nothing pass.
func (m *Matcher) Find(data []byte, allowed func(id string) bool) string {
	id := ""
	if m == nil {
		return id
	}
	m.each(data, func(p *pattern, _ int) bool {
		if p.refuse && (allowed == nil || !allowed(m.ids[p.id])) {
			id = m.ids[p.id]
		}
		return id == ""
	})
	return id
}

// Searches tells whether there is anything that [Matcher.Find] could find.
func (m *Matcher) Searches(allowed func(id string) bool) bool {
	return m != nil && slices.ContainsFunc(m.patterns, func(p pattern) bool {
		return p.refuse && (allowed == nil || !allowed(m.ids[p.id]))
	})
}
