package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestKilledDaemonRecovers(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	kept := write(t, map[string]string{"Dockerfile": base + "RUN echo kept > /kept\n"})
	d.build(bb, "-o", "type=cacheonly", kept)
	slow := write(t, map[string]string{"Dockerfile": base + "RUN echo half > /half; sleep 27182\n"})
	ended := make(chan result, 1)
	go func() {
		ended <- d.runContext(t.Context(), nil, "build", bb, "--progress", "plain", "-o", "type=cacheonly", slow)
	}()
	waitFor(t, "the slow step to run", func() bool { return len(processesNaming("sleep\x0027182")) > 0 })
	d.kill()
	if r := <-ended; r.code == 0 {
		t.Errorf("a build whose daemon was killed succeeded:\n%s", r.all())
	}
	d.start()
	waitFor(t, "what the killed daemon ran to end", func() bool { return len(processesNaming("sleep\x0027182")) == 0 })
	assertAllCached(t, d.build(bb, "-o", "type=cacheonly", kept))
	d.build(bb, "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base + "RUN echo next > /next\n"}))
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestTwentyBuildsAtOnceShareSteps(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	// The cache mount counts how often the shared step runs; its sleep makes the builds meet in it.
	shared := base + `RUN --mount=type=cache,target=/count echo ran >> /count/shared; sleep 1; echo shared > /shared
`
	before := d.descriptors()
	var wg sync.WaitGroup
	results := make([]result, 20)
	for i := range results {
		dir := write(t, map[string]string{"Dockerfile": fmt.Sprintf("%sRUN echo %d > /own\n", shared, i)})
		out := filepath.Join(dir, "out")
		wg.Go(func() {
			results[i] = d.runContext(t.Context(), nil, "build", "--progress", "plain", bb, "-o", out, dir)
			if results[i].code == 0 {
				if b, err := os.ReadFile(filepath.Join(out, "own")); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(i) {
					t.Errorf("build %d: got %q, %v", i, b, err)
				}
			}
		})
	}
	wg.Wait()
	for i, r := range results {
		if r.code != 0 {
			t.Errorf("build %d: exit %d\n%s", i, r.code, r.errOut)
		}
	}
	out := t.TempDir()
	d.build(bb, "-o", out, write(t, map[string]string{
		"Dockerfile": base + "RUN --mount=type=cache,target=/count cp /count/shared /count.txt\n",
	}))
	if n := strings.Count(read(t, out, "count.txt"), "ran"); n != 1 {
		t.Errorf("the shared step ran %d times, want once", n)
	}
	waitFor(t, "containers to be gone", func() bool {
		list, _ := exec.Command("runc", "--root", filepath.Join(d.root, "executor", "runtime"), "list", "-q").Output()
		return len(bytes.TrimSpace(list)) == 0
	})
	// Pools may keep a few; twenty builds would leak hundreds.
	if after := d.descriptors(); after > before+60 {
		t.Errorf("open files: %d before, %d after", before, after)
	}
}

// descriptors counts the daemon's open files.
func (d *daemon) descriptors() int {
	d.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(list)
}

func TestOneBuildCancelledDoesNotTouchTheOther(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{"Dockerfile": base + "RUN sleep 3; echo done > /done\n"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var other result
	wg.Go(func() { d.runContext(ctx, nil, "build", bb, "-o", "type=cacheonly", dir) })
	waitFor(t, "the step to run", func() bool { return len(processesNaming("sleep 3; echo done")) > 0 })
	wg.Go(func() { other = d.runContext(t.Context(), nil, "build", bb, "-o", "type=cacheonly", dir) })
	time.AfterFunc(time.Second, cancel)
	wg.Wait()
	cancel()
	if other.code != 0 {
		t.Errorf("the build that was not cancelled failed: %s", other.all())
	}
}

func TestStartedOnDemandAndLeavesWhenIdle(t *testing.T) {
	need(t, "runc", "busybox")
	dir := shortTemp(t)
	socket := filepath.Join(dir, "d", "s.sock")
	root := filepath.Join(dir, "root")
	// The command finds the daemon beside itself: a wrapper there gives it a root of its own.
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(binaries, "slipway"), filepath.Join(bin, "slipway"))
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\" --root %s --idle-timeout 1s\n", filepath.Join(binaries, "slipwayd"), root)
	if err := os.WriteFile(filepath.Join(bin, "slipwayd"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	bb := busyboxContext(t)
	src := write(t, map[string]string{"Dockerfile": base})
	var wg sync.WaitGroup
	var mu sync.Mutex
	notices := 0
	for range 5 {
		wg.Go(func() {
			cmd := exec.Command(filepath.Join(bin, "slipway"), "--addr", "unix://"+socket, "build", bb, "-o", "type=cacheonly", src)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			mu.Lock()
			defer mu.Unlock()
			notices += strings.Count(string(out), "in the background")
		})
	}
	wg.Wait()
	if notices != 1 {
		t.Errorf("%d of five commands say that they started a daemon, want one", notices)
	}
	if _, err := os.Stat(filepath.Join(dir, "d", "s.log")); err != nil {
		t.Errorf("the daemon's log: %v", err)
	}
	waitFor(t, "the daemon to leave", func() bool { return len(processesNaming(root)) == 0 })
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestClientKilledCancelsItsBuild(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	dir := write(t, map[string]string{"Dockerfile": base + "RUN sleep 16180\n"})
	cmd := exec.Command(filepath.Join(binaries, "slipway"), "--addr", "unix://"+d.socket, "build", bb, "-o", "type=cacheonly", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the step to run", func() bool { return len(processesNaming("sleep\x0016180")) > 0 })
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	waitFor(t, "the step of a client that is gone to end", func() bool { return len(processesNaming("sleep\x0016180")) == 0 })
}

func TestDuAndPrune(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	d.build(bb, "-o", "type=cacheonly", write(t, map[string]string{
		"Dockerfile": base + "RUN --mount=type=cache,target=/c head -c 1000000 /dev/zero > /c/big; head -c 2000000 /dev/zero > /layer\n",
	}))
	if r := d.run("du"); r.code != 0 || !strings.Contains(r.out, "cache mount") || !strings.Contains(r.out, "Total:") {
		t.Errorf("du: exit %d\n%s", r.code, r.all())
	}
	if r := d.run("prune", "--filter", "type==exec.cachemount"); r.code != 0 || !strings.Contains(r.out, "Total reclaimed: 1.0") {
		t.Errorf("prune of cache mounts: exit %d\n%s", r.code, r.all())
	}
	if r := d.run("prune", "--all"); r.code != 0 {
		t.Errorf("prune: exit %d\n%s", r.code, r.all())
	}
	if size := treeSize(t, filepath.Join(d.root, "layers")); size > 1_500_000 {
		t.Errorf("after prune %d bytes of layers are left", size)
	}
	d.build(bb, "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": base}))
}

func treeSize(t *testing.T, dir string) int64 {
	t.Helper()
	var total int64
	err := filepath.Walk(dir, func(_ string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			total += fi.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}
