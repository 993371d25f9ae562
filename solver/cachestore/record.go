package cachestore

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	digest "github.com/opencontainers/go-digest"
	"github.com/slipwaybuild/slipway/solver"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// maxParts bounds what the parts of one record may take when unpacked, in bytes.
const maxParts = 64 << 20

// storedLayer is how a layer can be had again: by its id while it is here, otherwise from where it came.
type storedLayer struct {
	ID     layers.ID          `json:"id"`
	Remote *layers.RemoteBlob `json:"remote,omitempty"`
}

// storedResult is one output. Empty tells a nil result from an empty stack.
type storedResult struct {
	Nil    bool          `json:"nil,omitempty"`
	Layers []storedLayer `json:"layers,omitempty"`
}

// Results implements [solver.Store]. Layers that are gone here and were once fetched come back lazy.
func (s *Store) Results(ctx context.Context, i solver.Identity) ([]solver.Result, bool, error) {
	row, ok, err := s.rows.get(records, i[:])
	if err != nil || !ok {
		return nil, false, err
	}
	used, val, err := stamped(row)
	var stored []storedResult
	if err == nil {
		err = json.Unmarshal(val, &stored)
	}
	if err != nil {
		return nil, false, s.damaged(records, i[:], err)
	}
	results := make([]solver.Result, 0, len(stored))
	for _, r := range stored {
		ref, err := s.hold(ctx, r)
		if err != nil {
			s.releaseAll(results)
			if errors.Is(err, layers.ErrNotFound) {
				return nil, false, s.drop(i, row)
			}
			return nil, false, fmt.Errorf("take hold of cached layers: %w", err)
		}
		results = append(results, NewResult(ref))
	}
	if s.now().Sub(used) > touchAfter {
		err = s.rows.put(records, i[:], s.stamp(val))
	}
	return results, true, err
}

// hold takes hold of one output's layers; nil for a nil result.
func (s *Store) hold(ctx context.Context, r storedResult) (*layers.Ref, error) {
	if r.Nil {
		return nil, nil
	}
	if len(r.Layers) == 0 {
		return s.layers.Scratch(), nil
	}
	ids := r.ids()
	remote := slices.ContainsFunc(r.Layers, func(l storedLayer) bool { return l.Remote != nil })
	if s.layers.Retired(ids...) {
		return nil, fmt.Errorf("layers were pruned: %w", layers.ErrNotFound)
	}
	ref, err := s.layers.Pin(ctx, ids...)
	if err == nil || !remote || !errors.Is(err, layers.ErrNotFound) {
		return ref, err
	}
	return s.holdEach(ctx, r.Layers)
}

func (r storedResult) ids() []layers.ID {
	ids := make([]layers.ID, len(r.Layers))
	for i, l := range r.Layers {
		ids[i] = l.ID
	}
	return ids
}

// holdEach takes hold of layers one after the other: for those of which some must be noted as remote again.
func (s *Store) holdEach(ctx context.Context, stored []storedLayer) (_ *layers.Ref, err error) {
	var refs []*layers.Ref
	defer func() {
		for _, r := range refs {
			if rerr := r.Release(); rerr != nil {
				s.log.Error("release layers", "err", rerr)
			}
		}
	}()
	for _, l := range stored {
		ref, err := s.layers.Pin(ctx, l.ID)
		if errors.Is(err, layers.ErrNotFound) && l.Remote != nil && !s.layers.KnownLost(*l.Remote) {
			ref, err = s.layers.AddRemote(ctx, *l.Remote)
		}
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return s.layers.Stack(refs...), nil
}

// drop removes a record that turned out to be lost, unless it was replaced meanwhile.
func (s *Store) drop(i solver.Identity, row []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, ok, err := s.rows.get(records, i[:])
	if err != nil || !ok || !slices.Equal(now, row) {
		return err
	}
	return s.rows.put(records, i[:], nil)
}

func (s *Store) releaseAll(results []solver.Result) {
	for _, r := range results {
		if r == nil {
			continue
		}
		if err := r.Release(); err != nil {
			s.log.Error("release layers", "err", err)
		}
	}
}

// PutResults implements [solver.Store]. If what was made differs from what was there, content digests of the old go with it.
func (s *Store) PutResults(_ context.Context, i solver.Identity, rec solver.Record, results []solver.Result) error {
	stored := make([]storedResult, len(results))
	for n, r := range results {
		ref := RefOf(r)
		if ref == nil {
			if r != nil {
				return fmt.Errorf("cachestore: cannot store a result of type %T", r)
			}
			stored[n].Nil = true
			continue
		}
		for _, l := range ref.Layers() {
			stored[n].Layers = append(stored[n].Layers, storedLayer{ID: lasting(l), Remote: l.Remote})
		}
	}
	val, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("encode cache record: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok, err := s.rows.get(records, i[:])
	if err != nil {
		return err
	}
	if !ok || !sameLayers(old, stored) {
		if err := s.rows.put(contents, i[:], nil); err != nil {
			return err
		}
	}
	if err := s.rows.put(records, i[:], s.stamp(val)); err != nil {
		return err
	}
	return s.putParts(i, rec)
}

// sameLayers says whether a row names the same layers as stored.
func sameLayers(row []byte, stored []storedResult) bool {
	_, val, err := stamped(row)
	var old []storedResult
	if err != nil || json.Unmarshal(val, &old) != nil {
		return false
	}
	return slices.EqualFunc(old, stored, func(a, b storedResult) bool {
		return a.Nil == b.Nil && slices.EqualFunc(a.Layers, b.Layers, func(x, y storedLayer) bool { return x.ID == y.ID })
	})
}

// putParts keeps what an explanation needs, and notes the record as the last of its step.
func (s *Store) putParts(i solver.Identity, rec solver.Record) error {
	dt, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode cache record: %w", err)
	}
	if len(dt) > maxParts {
		return nil // too long to be read by anyone
	}
	if err := s.rows.put(parts, i[:], s.stamp(s.enc.EncodeAll(dt, nil))); err != nil {
		return err
	}
	if rec.Step != "" {
		if err := s.rows.put(steps, []byte(rec.Step), s.stamp(i[:])); err != nil {
			return err
		}
	}
	if rec.Name != "" {
		return s.rows.put(names, nameKey(rec.Name), s.stamp(i[:]))
	}
	return nil
}

// nameKey is a name as a key: names may be of any length.
func nameKey(name string) []byte {
	h := sha256.Sum256([]byte(name))
	return h[:]
}

// PreviousRecord returns the latest record of the step with this id, or, if there is none, of the step with this name: what
// to compare a miss with. It is found even where its layers are gone.
func (s *Store) PreviousRecord(_ context.Context, step digest.Digest, name string) (solver.Record, bool, error) {
	for _, at := range []struct {
		b   bucket
		key []byte
	}{{steps, []byte(step)}, {names, nameKey(name)}} {
		row, ok, err := s.rows.get(at.b, at.key)
		if err != nil {
			return solver.Record{}, false, err
		}
		if !ok {
			continue
		}
		_, id, err := stamped(row)
		if err != nil || len(id) != len(solver.Identity{}) {
			return solver.Record{}, false, s.damaged(at.b, at.key, err)
		}
		rec, ok, err := s.Record(solver.Identity(id))
		if err != nil || ok {
			return rec, ok, err
		}
	}
	return solver.Record{}, false, nil
}

// Record returns what the keys of an identity were made of, where that is known. Its results may be gone.
func (s *Store) Record(i solver.Identity) (solver.Record, bool, error) {
	row, ok, err := s.rows.get(parts, i[:])
	if err != nil || !ok {
		return solver.Record{}, false, err
	}
	_, val, err := stamped(row)
	var dt []byte
	if err == nil {
		dt, err = s.dec.DecodeAll(val, nil)
	}
	var rec solver.Record
	if err == nil {
		err = json.Unmarshal(dt, &rec)
	}
	if err != nil {
		return solver.Record{}, false, s.damaged(parts, i[:], err)
	}
	return rec, true, nil
}
