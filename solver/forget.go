package solver

import "context"

// Forget drops the records of steps whose results must not be found again, though nothing of them is lost: why is for the log. Who asks
// for them next makes them again. Results that were handed out stay valid.
func (b *Build) Forget(ctx context.Context, why error, steps ...Step) error {
	if err := b.enter(); err != nil {
		return err
	}
	defer b.callers.Done()
	for _, step := range steps {
		b.s.forget(ctx, &outcome{identity: step.Identity, born: b.s.losses.now()}, why)
	}
	return nil
}
