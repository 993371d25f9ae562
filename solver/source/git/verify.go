package git

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/util/gitutil/gitobject"
	"github.com/moby/buildkit/util/gitutil/gitsign"
	"github.com/moby/buildkit/util/pgpsign"
	"github.com/slipwaybuild/slipway/solver/source"
)

// objects are those behind a pin, raw.
type objects struct {
	commitName  string
	commit, tag []byte // tag is nil if the ref points at the commit
}

func readObjects(ctx context.Context, g *git, p pin) (*objects, error) {
	name, err := commitOf(ctx, g, p)
	if err != nil {
		return nil, err
	}
	o := &objects{commitName: name}
	raw, err := g.run(ctx, "cat-file", "commit", name)
	if err != nil {
		return nil, err
	}
	o.commit = []byte(raw)
	if name != p.Object {
		if raw, err = g.run(ctx, "cat-file", "tag", p.Object); err != nil {
			return nil, err
		}
		o.tag = []byte(raw)
	}
	return o, nil
}

// verify fetches the commit and checks that it, or its tag, is signed as wanted.
func (s *Source) verify(ctx context.Context, env source.Env, q *query, p pin) error {
	var o *objects
	err := s.withRepository(ctx, env, q, p, func(g *git, _ string) (err error) {
		o, err = readObjects(ctx, g, p)
		return err
	})
	if err != nil {
		return err
	}
	return q.signature.check(o, p)
}

// check takes a signed tag, if there is one and it counts, or else a signed commit unless only a tag will do.
func (sig *signature) check(o *objects, p pin) error {
	var tagErr error
	if o.tag != nil && !sig.ignoreTag {
		if tagErr = sig.checkObject(o.tag, p.Object); tagErr == nil {
			return nil
		}
		tagErr = fmt.Errorf("tag: %w", tagErr)
	}
	if sig.requireTag {
		if tagErr == nil {
			tagErr = errors.New("signed tag required but no signed tag found")
		}
		return tagErr
	}
	if err := sig.checkObject(o.commit, o.commitName); err != nil {
		return errors.Join(tagErr, fmt.Errorf("commit: %w", err))
	}
	return nil
}

func (sig *signature) checkObject(raw []byte, name string) error {
	obj, err := gitobject.Parse(raw)
	if err != nil {
		return err
	}
	if err := obj.VerifyChecksum(name); err != nil {
		return err
	}
	return gitsign.VerifySignature(obj, sig.pubKey, &pgpsign.VerifyPolicy{RejectExpiredKeys: sig.rejectExpired})
}
