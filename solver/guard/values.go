package guard

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
)

// maxValues bounds how many values a set holds. A build that uses more has forgotten what it is doing; the first count.
const maxValues = 4096

// Values is a set of secret values that grows. Its zero value is empty and ready; all methods are safe for concurrent use.
type Values struct {
	mu      sync.Mutex
	list    []*value
	known   map[string]bool
	matcher *Matcher
	stale   bool // the matcher lacks some of the list
	heard   []func(id string, size int)
}

type value struct {
	id     string
	text   []byte
	search bool // not only masked
	forms  []form
}

func (v *value) key() string { return fmt.Sprintf("%t %d:%s%s", v.search, len(v.id), v.id, v.text) }

// Learn adds a value under the id that people know it by. White space around it does not count: tools take it off, and put it on.
func (v *Values) Learn(id string, text []byte) { v.learn(id, text, true) }

// LearnToken adds a value that no step ever gets, so that it is masked and not searched for.
func (v *Values) LearnToken(id string, text []byte) { v.learn(id, text, false) }

func (v *Values) learn(id string, text []byte, search bool) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return
	}
	one := &value{id: id, text: bytes.Clone(text), search: search}
	if !v.add(one) {
		return
	}
	v.mu.Lock()
	heard := slices.Clone(v.heard)
	v.mu.Unlock()
	for _, f := range heard {
		f(id, len(text))
	}
}

// add tells whether the value is new.
func (v *Values) add(one *value) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known[one.key()] || len(v.list) >= maxValues {
		return false
	}
	if v.known == nil {
		v.known = map[string]bool{}
	}
	v.known[one.key()] = true
	if len(one.text) < MinFind {
		one.forms = []form{{text: one.text}}
	} else {
		one.forms = formsOf(one.text)
	}
	v.list = append(v.list, one)
	v.stale = true
	return true
}

// Heard has f called with the id and length of every value that is learned from now on.
func (v *Values) Heard(f func(id string, size int)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.heard = append(v.heard, f)
}

// Matcher finds the values there are now; nil if there are none.
func (v *Values) Matcher() *Matcher {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stale {
		v.matcher, v.stale = newMatcher(v.list), false
	}
	return v.matcher
}

// Join returns a Matcher of all that the sets hold now; nil if that is nothing.
func Join(sets ...*Values) *Matcher {
	sets = slices.DeleteFunc(slices.Clone(sets), func(v *Values) bool { return v == nil })
	if len(sets) == 1 {
		return sets[0].Matcher()
	}
	var list []*value
	seen := map[string]bool{}
	for _, v := range sets {
		v.mu.Lock()
		for _, one := range v.list {
			if !seen[one.key()] {
				seen[one.key()] = true
				list = append(list, one)
			}
		}
		v.mu.Unlock()
	}
	return newMatcher(list)
}

// salt makes fingerprints useless outside of this process.
var salt = sync.OnceValue(func() []byte { return []byte(rand.Text()) })

func fingerprint(values []*value) [32]byte {
	var sums [][]byte
	for _, v := range values {
		if !v.search {
			continue
		}
		h := hmac.New(sha256.New, salt())
		h.Write([]byte(v.key()))
		sums = append(sums, h.Sum(nil))
	}
	slices.SortFunc(sums, bytes.Compare)
	return sha256.Sum256(bytes.Join(sums, nil))
}
