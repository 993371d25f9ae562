package git

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/buildkit/util/gitutil"
)

// pin is what a ref means now.
type pin struct {
	// Ref is the whole name, or the commit if that was asked for.
	Ref string
	// Object is what Ref points at: a commit, or an annotated tag.
	Object string
	// Commit is what an annotated tag points at; "" if Object is the commit as far as is known.
	Commit string
}

// key is the object that the checkout depends on: of a tag, only a checkout with its .git has more than the commit.
func (p pin) key(q *query) string {
	if p.Commit != "" && !q.keepsGit() {
		return p.Commit
	}
	return p.Object
}

// static resolves what needs no network.
func (q *query) static() (pin, bool) {
	switch {
	case gitutil.IsCommitSHA(q.ref):
		return pin{Ref: q.ref, Object: q.ref}, true
	case q.fetchByCommit:
		ref := q.ref
		if ref == "" {
			ref = q.checksum
		} else if !strings.HasPrefix(ref, "refs/") {
			ref = "refs/heads/" + ref
		}
		return pin{Ref: ref, Object: q.checksum}, true
	}
	return pin{}, false
}

// resolve asks the remote.
func resolve(ctx context.Context, g *git, q *query) (pin, error) {
	args := []string{"ls-remote", "--symref", "--", q.remote}
	if q.ref == "" {
		args = append(args, "HEAD")
	} else {
		args = append(args, q.ref, q.ref+"^{}")
	}
	out, err := g.run(ctx, args...)
	if err != nil {
		return pin{}, fmt.Errorf("resolve ref of %s: %w", q.remote, err)
	}
	p, err := choose(q.ref, out)
	if err != nil {
		return pin{}, fmt.Errorf("%s: %w", q.remote, err)
	}
	return p, nil
}

// accepts checks a pin against the checksum that was asked for.
func (q *query) accepts(p pin) error {
	if strings.HasPrefix(p.Object, q.checksum) || p.Commit != "" && strings.HasPrefix(p.Commit, q.checksum) {
		return nil
	}
	got := p.Object
	if p.Commit != "" {
		got += " or " + p.Commit
	}
	return q.mismatch(got)
}

// choose reads the output of ls-remote as git checkout would: a branch goes before a tag of the same name.
func choose(ref, out string) (pin, error) {
	found := map[string]string{}
	head := ""
	for line := range strings.Lines(out) {
		object, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			continue
		}
		if target, ok := strings.CutPrefix(object, "ref: "); ok {
			if name == "HEAD" {
				head = target
			}
			continue
		}
		if !gitutil.IsCommitSHA(object) {
			return pin{}, fmt.Errorf("invalid object name %.80q from remote", object)
		}
		found[name] = object
	}
	if ref == "" {
		object, ok := found["HEAD"]
		if !ok {
			return pin{}, fmt.Errorf("could not find default branch")
		}
		if head == "" {
			head = object // a detached HEAD
		}
		return pin{Ref: head, Object: object}, nil
	}
	bare := strings.TrimPrefix(ref, "refs/")
	for _, name := range []string{"refs/" + bare, "refs/heads/" + strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/" + strings.TrimPrefix(ref, "refs/tags/")} {
		if object, ok := found[name]; ok {
			return pin{Ref: name, Object: object, Commit: found[name+"^{}"]}, nil
		}
	}
	return pin{}, fmt.Errorf("repository does not contain ref %s", ref)
}
