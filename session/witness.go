package session

import "slices"

// Witness is told of every secret that the sessions of a [Group] gave away, so that it can see to it that it goes no further. Its
// method must be safe for concurrent use and must not keep the value's memory.
type Witness interface {
	// Learn hears of a value and of the id that people know it by.
	Learn(id string, value []byte)
	// LearnToken hears of one that no step ever gets and that is worth nothing after minutes.
	LearnToken(id string, value []byte)
}

// Witnessed returns a group of the same sessions whose secrets w hears of, besides those who do already. A witness is told once, so it
// must be comparable.
func (g *Group) Witnessed(w Witness) *Group {
	out := Join(g)
	out.witness(w)
	return out
}

func (g *Group) witness(list ...Witness) {
	for _, w := range list {
		if !slices.Contains(g.witnesses, w) {
			g.witnesses = append(g.witnesses, w)
		}
	}
}

// Witnesses lists those who hear of secrets.
func (g *Group) Witnesses() []Witness {
	if g == nil {
		return nil
	}
	return slices.Clone(g.witnesses)
}

// Learned tells the group's witnesses of a secret that one of its sessions gave away, or that was got for what it gave. Whoever asks a
// session for a secret calls it before the value is used.
func (g *Group) Learned(id string, value []byte) {
	if g == nil {
		return
	}
	for _, w := range g.witnesses {
		w.Learn(id, value)
	}
}

// LearnedToken is Learned for a token.
func (g *Group) LearnedToken(id string, value []byte) {
	if g == nil {
		return
	}
	for _, w := range g.witnesses {
		w.LearnToken(id, value)
	}
}
