package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/identity"
	buildkitsession "github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
)

// TestStoppedClients are stopped for a minute while a step runs, and asked for something when they go on.
func TestStoppedClients(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a minute")
	}
	d := startDaemon(t)
	bb := busyboxContext(t)
	docker := sessionDocker(t)
	// The token is asked for by the second step only, when the client has been stopped for long.
	text := "RUN sleep %s; echo first\nRUN --mount=type=secret,id=s cat /run/secrets/s | sed s/^/got:/\n"
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	slipwayDir := write(t, map[string]string{"Dockerfile": base + fmt.Sprintf(text, "5.51")})
	dockerDir := write(t, map[string]string{"Dockerfile": strings.ReplaceAll(base, "--from=busybox ", "") + fmt.Sprintf(text, "5.52")})
	copyFile(t, filepath.Join(busyboxDir(t), "busybox"), filepath.Join(dockerDir, "busybox"))
	ctx := context.WithoutCancel(t.Context())
	slipway := exec.Command(filepath.Join(binaries, "slipway"), "--addr", "unix://"+d.socket, "build", "--progress", "plain", bb, "--secret", "id=s,src="+token, "-o", "type=cacheonly", slipwayDir)
	var wg sync.WaitGroup
	for name, c := range map[string]struct {
		cmd  *exec.Cmd
		step string
	}{
		"slipway": {slipway, "sleep 5.51"},
		"docker":  {docker.command(ctx, d, "build", "--secret", "id=s,src="+token, dockerDir), "sleep 5.52"},
	} {
		var said bytes.Buffer
		c.cmd.Stdout, c.cmd.Stderr = &said, &said
		if err := c.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, name+"'s step to run", func() bool { return len(processesNaming(c.step)) > 0 })
		if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			time.Sleep(time.Minute)
			_ = c.cmd.Process.Signal(syscall.SIGCONT)
			// Masked or not, what the client gave is what the step got: the step is not cached, and did not fail.
			if err := c.cmd.Wait(); err != nil || !strings.Contains(said.String(), "got:") {
				t.Errorf("%s, stopped for a minute: %v\n%s", name, err, &said)
			}
		})
	}
	wg.Wait()
}

// TestSessionThatIsGone has the error of what needed it say so: what was needed, and by which step.
func TestSessionThatIsGone(t *testing.T) {
	d := startDaemon(t)
	c := d.client(t)
	s, err := buildkitsession.NewSession(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	s.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource{"busybox": mount(t, busyboxDir(t))}))
	s.Allow(secretsprovider.FromMap(map[string][]byte{"token": []byte("x")}))
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.WithoutCancel(t.Context()), c.Dialer()) }()
	st := llb.Scratch().File(llb.Copy(llb.Local("busybox"), "busybox", "/bin/busybox", &llb.CopyInfo{CreateDestPath: true})).
		Run(llb.Args([]string{"/bin/busybox", "sleep", "3.33"})).
		Run(llb.Args([]string{"/bin/busybox", "cat", "/run/secrets/token"}), llb.AddSecret("/run/secrets/token", llb.SecretID("token")))
	def, err := st.Root().Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	solved := make(chan error, 1)
	go func() {
		_, err := c.ControlClient().Solve(context.WithoutCancel(t.Context()), &controlapi.SolveRequest{Ref: identity.NewID(), Session: s.ID(), Definition: def.ToPB()})
		solved <- err
	}()
	waitFor(t, "the step before to run", func() bool { return len(processesNaming("sleep\x003.33")) > 0 })
	_ = s.Close()
	<-ran
	err = <-solved
	if err == nil {
		t.Fatal("the build got a secret from a session that is gone")
	}
	for _, want := range []string{"secret token", "no active session", s.ID() + " is over", `run "/bin/busybox cat /run/secrets/token"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}
