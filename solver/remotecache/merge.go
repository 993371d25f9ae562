package remotecache

import (
	"bytes"
	"cmp"
	"slices"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
)

// Limits of a cache that is written: what is beyond them, that was used least recently, goes. They keep a manifest below what registries
// take.
const (
	maxEntries = 5000
	maxLayers  = 4000
)

// Merge adds to c what is in old and not in c. What both have, c says. Layers for which gone is true are taken for missing.
func (c *Cache) Merge(old *Cache, gone func(Layer) bool) {
	if old == nil {
		return
	}
	c.Foreign += old.Foreign
	c.mergeMounts(old)
	lost := make([]bool, len(old.Layers))
	for i, l := range old.Layers {
		lost[i] = gone(l)
	}
	have := map[solver.Identity]bool{}
	leads := map[solver.Promise]bool{}
	for _, e := range c.Entries {
		have[e.Identity] = true
		for _, p := range e.Promises {
			leads[p] = true
		}
	}
	at := c.layerOf()
	for _, e := range old.Entries {
		if have[e.Identity] || e.needs(lost) {
			c.keepPromises(e, leads)
			continue
		}
		e.Outputs = c.translate(e.Outputs, old, at)
		e.Promises = slices.DeleteFunc(slices.Clone(e.Promises), func(p solver.Promise) bool { return leads[p] })
		c.Entries = append(c.Entries, e)
	}
}

// keepPromises lets an entry that c has be found under the promises that others know for it.
func (c *Cache) keepPromises(old Entry, leads map[solver.Promise]bool) {
	for i := range c.Entries {
		e := &c.Entries[i]
		if e.Identity != old.Identity {
			continue
		}
		for _, p := range old.Promises {
			if !leads[p] {
				e.Promises = append(slices.Clip(e.Promises), p)
				leads[p] = true
			}
		}
		for _, d := range old.Contents {
			same := func(o solver.Content) bool { return o.Output == d.Output && o.Selector == d.Selector }
			if !slices.ContainsFunc(e.Contents, same) {
				e.Contents = append(slices.Clip(e.Contents), d)
			}
		}
	}
}

// partial tells whether an output is absent.
func (e Entry) partial() bool {
	return slices.ContainsFunc(e.Outputs, func(o Output) bool { return o.Absent })
}

// useless tells whether all that the step made is absent.
func (e Entry) useless() bool {
	return e.partial() && !slices.ContainsFunc(e.Outputs, func(o Output) bool { return len(o.Stack) > 0 })
}

// needs tells whether one of the marked layers is part of the entry.
func (e Entry) needs(marked []bool) bool {
	for _, o := range e.Outputs {
		for _, l := range o.Stack {
			if l != NoLayer && marked[l] {
				return true
			}
		}
	}
	return false
}

// translate adds the layers of outputs of another cache, and returns the outputs in terms of c.
func (c *Cache) translate(outputs []Output, from *Cache, at map[digest.Digest]int) []Output {
	list := make([]Output, len(outputs))
	for i, o := range outputs {
		list[i] = Output{Nil: o.Nil, Absent: o.Absent, Stack: make([]int, len(o.Stack))}
		for j, l := range o.Stack {
			list[i].Stack[j] = c.intern(l, from, at)
		}
	}
	return list
}

func (c *Cache) intern(l int, from *Cache, at map[digest.Digest]int) int {
	if l == NoLayer {
		return NoLayer
	}
	layer := from.Layers[l]
	n, ok := at[layer.DiffID]
	if !ok {
		n = len(c.Layers)
		c.Layers = append(c.Layers, layer)
		at[layer.DiffID] = n
	}
	return n
}

// Shrink leaves out what is too much, the least recently used first, and then the layers that nothing needs.
func (c *Cache) Shrink() {
	slices.SortStableFunc(c.Entries, func(a, b Entry) int { return b.Used.Compare(a.Used) })
	if len(c.Entries) > maxEntries {
		c.Entries = c.Entries[:maxEntries]
	}
	small := &Cache{Foreign: c.Foreign, Mounts: c.Mounts}
	at := map[digest.Digest]int{}
	for _, e := range c.Entries {
		more := map[digest.Digest]bool{}
		for _, o := range e.Outputs {
			for _, l := range o.Stack {
				if l != NoLayer {
					if _, ok := at[c.Layers[l].DiffID]; !ok {
						more[c.Layers[l].DiffID] = true
					}
				}
			}
		}
		if len(small.Layers)+len(more) > maxLayers {
			continue
		}
		e.Outputs = small.translate(e.Outputs, c, at)
		small.Entries = append(small.Entries, e)
	}
	*c = *small
}

// has tells whether c has all that want has: the same steps, under the same promises.
func (c *Cache) has(want *Cache) bool {
	ids := map[solver.Identity]bool{}
	leads := map[solver.Promise]solver.Identity{}
	for _, e := range c.Entries {
		ids[e.Identity] = true
		for _, p := range e.Promises {
			leads[p] = e.Identity
		}
	}
	for _, e := range want.Entries {
		if !ids[e.Identity] {
			return false
		}
		for _, p := range e.Promises {
			if _, ok := leads[p]; !ok {
				return false
			}
		}
	}
	return c.hasMounts(want)
}

// sort puts entries and layers into an order that depends on nothing but what they are, so that equal caches are equal bytes.
func (c *Cache) sort() {
	slices.SortStableFunc(c.Entries, func(a, b Entry) int { return cmp.Compare(a.Identity.String(), b.Identity.String()) })
	sorted := &Cache{Foreign: c.Foreign, Mounts: c.Mounts}
	at := map[digest.Digest]int{}
	for _, e := range c.Entries {
		e.Outputs = sorted.translate(e.Outputs, c, at)
		e.Promises = slices.SortedFunc(slices.Values(e.Promises), func(a, b solver.Promise) int { return bytes.Compare(a[:], b[:]) })
		e.Contents = slices.SortedFunc(slices.Values(e.Contents), func(a, b solver.Content) int {
			return cmp.Or(cmp.Compare(a.Output, b.Output), cmp.Compare(a.Selector, b.Selector))
		})
		sorted.Entries = append(sorted.Entries, e)
	}
	*c = *sorted
}
