package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// registry is Debian's docker-registry on the loopback, with its files on the disk that is measured.
type registry struct {
	host, dir string
	cmd       *exec.Cmd
}

func startRegistry(ctx context.Context, dir string) (*registry, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &registry{host: l.Addr().String(), dir: dir}
	if err := l.Close(); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, r.host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	r.cmd = exec.Command("docker-registry", "serve", config)
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(time.Minute)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		resp, err := http.Get("http://" + r.host + "/v2/")
		if err == nil {
			return r, resp.Body.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("docker-registry does not answer at %s", r.host), r.stop())
}

func (r *registry) stop() error {
	if err := r.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = r.cmd.Wait() // says that it was killed
	return nil
}

// push stores an image of layers that are files, compressed or not, and returns its name.
func (r *registry) push(ctx context.Context, repository string, layers ...string) (string, error) {
	img := empty.Image
	for _, file := range layers {
		layer, err := tarball.LayerFromFile(file)
		if err != nil {
			return "", err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return "", err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture()
	config.Config = v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/sh"}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return "", err
	}
	ref, err := name.ParseReference(r.host + "/" + repository + ":1")
	if err != nil {
		return "", err
	}
	return ref.String(), remote.Write(ref, img, remote.WithContext(ctx))
}

// pushBusybox stores an image with busybox and its names.
func (r *registry) pushBusybox(ctx context.Context) (string, error) {
	var archive bytes.Buffer
	if err := writeBusybox(&archive); err != nil {
		return "", err
	}
	file := filepath.Join(r.dir, "busybox.tar")
	if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
		return "", err
	}
	return r.push(ctx, "busybox", file)
}

// writeBusybox writes a root file system with busybox as a tar.
func writeBusybox(w io.Writer) error {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	names, err := exec.Command(path, "--list").Output()
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	add := func(h *tar.Header, content []byte) {
		if err == nil {
			err = tw.WriteHeader(h)
		}
		if err == nil {
			_, err = tw.Write(content)
		}
	}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		add(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))}, program)
	for name := range strings.FieldsSeq(string(names)) {
		if name != "busybox" {
			add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	return errors.Join(err, tw.Close())
}
