// Frontend is a frontend that the end-to-end tests put into an image. What it does, and does wrong, its option "mode" says.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	"github.com/moby/buildkit/solver/errdefs"
)

func main() {
	switch mode := option("mode"); mode {
	case "crash":
		panic("cannot go on")
	case "silent":
		return
	case "garbage":
		fmt.Println("hello")
		_, _ = io.Copy(io.Discard, os.Stdin) // until somebody ends it
	case "garbage and gone":
		fmt.Println("usage: frontend")
		os.Exit(3)
	case "babble":
		fmt.Print("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", strings.Repeat("babble", 1000))
		time.Sleep(time.Hour)
	default:
		if err := grpcclient.RunFromEnvironment(context.Background(), build); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if mode == "stay" {
			time.Sleep(time.Hour)
		}
		if mode == "fall" {
			os.Exit(5)
		}
	}
}

// option is one of the request's, as the engine gives them to programs.
func option(name string) string {
	for _, kv := range os.Environ() {
		if k, v, _ := strings.Cut(kv, "="); strings.HasPrefix(k, "BUILDKIT_FRONTEND_OPT_") {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
	}
	return ""
}

func build(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
	switch mode := option("mode"); mode {
	case "error":
		return nil, errors.New("I would rather not")
	case "subrequest":
		return nil, errdefs.NewUnsupportedSubrequestError("frontend.none")
	case "wait":
		fmt.Fprintln(os.Stderr, "waiting")
		<-ctx.Done()
		return nil, context.Cause(ctx)
	case "container":
		return container(ctx, c)
	case "again":
		return c.Solve(ctx, gwclient.SolveRequest{Frontend: "gateway.v0", FrontendOpt: c.BuildOpts().Opts})
	case "input":
		inputs, err := c.Inputs(ctx)
		if err != nil {
			return nil, err
		}
		return solve(ctx, c, inputs["in"].File(llb.Mkfile("/more", 0o644, []byte("more"))))
	default:
		fmt.Fprintln(os.Stderr, "a frontend speaks")
		return solve(ctx, c, llb.Scratch().File(llb.Mkfile("/told", 0o644, []byte(told(c)))))
	}
}

// told is all that the engine told the frontend.
func told(c gwclient.Client) string {
	o := c.BuildOpts()
	cwd, _ := os.Getwd()
	var b strings.Builder
	fmt.Fprintf(&b, "args %q\ncwd %s\nuid %d\nimage %s\nproduct %s\nworkers %d\nsession %t\n", os.Args[1:], cwd, os.Getuid(), os.Getenv("OF_THE_IMAGE"),
		o.Product, len(o.Workers), o.SessionID != "")
	var keys []string
	for k := range o.Opts {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	fmt.Fprintf(&b, "opts %v\n", keys)
	if current, ok := c.(interface{ CurrentFrontend() (*llb.State, error) }); ok {
		st, err := current.CurrentFrontend()
		fmt.Fprintf(&b, "current %t %v\n", st != nil, err)
	}
	return b.String()
}

func solve(ctx context.Context, c gwclient.Client, st llb.State) (*gwclient.Result, error) {
	def, err := st.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	return c.Solve(ctx, gwclient.SolveRequest{Definition: def.ToPB()})
}

// container runs this very program in a container of its own.
func container(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
	st, err := c.(interface{ CurrentFrontend() (*llb.State, error) }).CurrentFrontend()
	if err != nil {
		return nil, err
	}
	res, err := solve(ctx, c, *st)
	if err != nil {
		return nil, err
	}
	ctr, err := c.NewContainer(ctx, gwclient.NewContainerRequest{Mounts: []gwclient.Mount{{Dest: "/", Ref: res.Ref}}})
	if err != nil {
		return nil, err
	}
	out := &output{}
	p, err := ctr.Start(ctx, gwclient.StartRequest{Args: []string{"/frontend"}, Env: []string{"BUILDKIT_FRONTEND_OPT_0=mode=garbage and gone"}, Stdout: out})
	if err != nil {
		return nil, err
	}
	said := fmt.Sprint(p.Wait())
	// It is not released: the engine has to.
	return solve(ctx, c, llb.Scratch().File(llb.Mkfile("/said", 0o644, []byte(out.String()+said))))
}

type output struct{ bytes.Buffer }

func (*output) Close() error { return nil }
