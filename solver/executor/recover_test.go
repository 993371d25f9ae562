package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/slipwaybuild/slipway/solver/executor"
	"github.com/slipwaybuild/slipway/solver/executor/executortest"
	"github.com/slipwaybuild/slipway/solver/layers"
)

// crashEnv makes a test binary run steps in place of tests, to be killed.
const crashEnv = "SLIPWAY_TEST_CRASH"

// crash is what the binary to be killed is told.
type crash struct {
	Store, Root, Word string
	Base              []layers.ID
}

func TestMain(m *testing.M) {
	if told := os.Getenv(crashEnv); told != "" {
		if err := runToBeKilled(told); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func runToBeKilled(told string) error {
	var c crash
	if err := json.Unmarshal([]byte(told), &c); err != nil {
		return err
	}
	ctx := context.Background()
	store, err := layers.Open(ctx, layers.Options{Root: c.Store})
	if err != nil {
		return err
	}
	r, err := executor.New(executor.Options{Store: store, Root: c.Root})
	if err != nil {
		return err
	}
	spec := executor.Spec{
		Args: []string{"/bin/sh", "-c", "sleep " + c.Word + " & echo started; sleep " + c.Word + "; echo over"},
		Mounts: []executor.Mount{
			{Dest: "/", Layers: c.Base, Output: true},
			{Dest: "/s", Type: executor.MountSecret, ID: "s"},
		},
	}
	svc := executortest.Services{Secrets: map[string]string{"s": "v"}}
	_, err = r.Run(ctx, spec, svc, executor.IO{Stdout: os.Stdout}, nil)
	return err
}

func TestRecoverAfterKill(t *testing.T) {
	t.Parallel()
	c := crash{Store: filepath.Join(t.TempDir(), "store"), Root: filepath.Join(t.TempDir(), "executor"), Word: seconds()}
	c.Base = heldBase(t, c.Store)
	kill(t, c)
	if len(processes(t, c.Word)) == 0 {
		t.Fatal("the step died with its daemon: nothing to recover from")
	}

	store := openStore(t, c.Store)
	r, err := executor.New(executor.Options{Store: store, Root: c.Root})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if pids := processes(t, c.Word); len(pids) != 0 {
		t.Errorf("processes %v outlived recovery", pids)
	}
	h := &host{runc: r, root: c.Root}
	h.Env = executortest.Env{Store: store, Executor: r, Base: c.Base, Args: executortest.Shell}
	h.nothingLeft(t)
	h.sh(t, "echo works", nil).says(t, "works\n")
	if err := r.Recover(t.Context()); err != nil {
		t.Errorf("nothing to recover: %v", err)
	}
}

// heldBase makes a store in which the base layer is held, and closes it: a store is open once at a time.
func heldBase(t *testing.T, dir string) []layers.ID {
	t.Helper()
	needHost(t)
	store, err := layers.Open(t.Context(), layers.Options{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := store.Import(t.Context(), tarOf(t, busyboxFiles(t)), layers.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ids := ref.IDs()
	if err := errors.Join(store.Hold(t.Context(), "test", ref), ref.Release(), store.Close()); err != nil {
		t.Fatal(err)
	}
	return ids
}

// kill starts a daemon, and kills it while its step runs.
func kill(t *testing.T, c crash) {
	t.Helper()
	told, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+string(told))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 1000)
	n, err := out.Read(line)
	if err != nil || string(line[:n]) != "started\n" {
		t.Errorf("daemon said %q (%v)", line[:n], err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
}
