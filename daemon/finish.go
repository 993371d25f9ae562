package daemon

import "context"

// finish does what is left of a build whose answer is known, and gives back what it holds.
func (e *Engine) finish(b *build) {
	if b.after == nil {
		e.release(b)
		return
	}
	e.settling.Go(func() {
		defer e.release(b)
		if err := b.after(e.life); err != nil && context.Cause(e.life) == nil {
			e.log.Warn("write cache after the build", "ref", b.ref, "error", err)
		}
	})
}

func (e *Engine) release(b *build) {
	if err := b.close(); err != nil {
		e.log.Warn("close build", "ref", b.ref, "error", err)
	}
	e.settle()
}
