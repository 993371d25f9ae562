package fake_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/executortest"
	"github.com/slipwaybuild/slipway/solver/executor/fake"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

func TestContract(t *testing.T) {
	executortest.Run(t, func(t *testing.T) executortest.Env {
		store, err := layers.Open(t.Context(), layers.Options{Root: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
		return executortest.Env{Store: store, Executor: fake.New(store, interpret), Args: encode}
	})
}

func encode(cmds ...executortest.Command) []string {
	b, err := json.Marshal(cmds)
	if err != nil {
		panic(err)
	}
	return []string{string(b)}
}

// interpret does what the suite's commands say.
func interpret(ctx context.Context, c *fake.Call) error {
	var cmds []executortest.Command
	if err := json.Unmarshal([]byte(c.Spec.Args[0]), &cmds); err != nil {
		return err
	}
	for _, cmd := range cmds {
		switch {
		case cmd.Write != nil:
			if err := c.Write(fake.File{Entry: fstree.Entry{Path: cmd.Write.Path, Mode: 0o644}, Data: []byte(cmd.Write.Data)}); err != nil {
				return err
			}
		case cmd.Cat != "":
			b, err := c.ReadFile(ctx, cmd.Cat)
			if err != nil {
				return err
			}
			if _, err := c.IO.Stdout.Write(b); err != nil {
				return err
			}
		case cmd.Wait:
			<-ctx.Done()
			return ctx.Err()
		case cmd.Exit != 0:
			return &executor.ExitError{Code: cmd.Exit}
		}
	}
	return nil
}
