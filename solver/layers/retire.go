package layers

import "slices"

// retired says that nothing but images keeps the layer, or what was packed into it, and the cache is not to know it.
func (l *layer) retired() bool {
	if len(l.aliases) == 0 || l.holds > 0 {
		return l.Retired
	}
	return !slices.ContainsFunc(l.aliases, func(a *layer) bool { return !a.Retired })
}

// retirable says that the layer cannot go only because of images.
func (l *layer) retirable() bool { return l.pins == 0 && l.holds > 0 && !l.Retired }

// retire is called under mu.
func (s *Store) retire(l *layer) {
	l.Retired = true
	s.save(l, false)
}

// Retired says whether one of the layers was pruned and is here for an image only: no result of the cache may rest on it.
func (s *Store) Retired(ids ...ID) bool {
	return s.anyLayer(ids, func(l *layer) bool { return l != nil && l.Retired })
}

// Cached says whether all of the layers are known, here or remote, and none is retired. It takes no hold and is no use of them.
func (s *Store) Cached(ids ...ID) bool {
	return !s.anyLayer(ids, func(l *layer) bool { return l == nil || l.Retired })
}

func (s *Store) anyLayer(ids []ID, is func(*layer) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(ids, func(id ID) bool { return is(s.layers[id]) })
}

// Everything says that all is to go that may, whatever the sizes: then what images keep leaves the cache as well.
func (o PruneOptions) Everything() bool { return o.All && !o.hasGoal() }
