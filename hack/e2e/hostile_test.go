package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// canary is a file of the host that no build may read or change.
func canary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(shortTemp(t), "canary")
	if err := os.WriteFile(path, []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b, err := os.ReadFile(path); err != nil || string(b) != "host" {
			t.Errorf("the host's file is now %q, %v", b, err)
		}
	})
	return path
}

func TestHostileArchives(t *testing.T) {
	d := startDaemon(t)
	host := canary(t)
	name := strings.TrimPrefix(host, "/")
	file := regular("Dockerfile", "FROM scratch\nCOPY . /\n")
	for _, test := range []struct {
		name    string
		entries []tar.Header
		refused bool // may not succeed
	}{
		{"dots", []tar.Header{regular("../../../../../../../"+name, "evil")}, false},
		{"absolute", []tar.Header{regular(host, "evil")}, false},
		{"through a link", []tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: filepath.Dir(host)}, regular("l/canary", "evil")}, false},
		{"link replaced", []tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: host}, regular("l", "evil")}, false},
		{"hard link to nothing", []tar.Header{{Name: "h", Typeflag: tar.TypeLink, Linkname: "absent"}}, true},
		{"hard link to the host", []tar.Header{{Name: "h", Typeflag: tar.TypeLink, Linkname: host}}, true},
		{"hard link by dots", []tar.Header{{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../../.." + host}}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := t.TempDir()
			r := d.runContext(t.Context(), tarball(t, append([]tar.Header{file}, test.entries...)...), "build", "--progress", "plain", "-o", out, "-")
			if test.refused && r.code == 0 {
				t.Errorf("was taken: %q", list(t, out))
			}
			if r.code != 0 && !strings.Contains(r.errOut, "ERROR: ") {
				t.Errorf("exit %d without an error:\n%s", r.code, r.all())
			}
			if b, err := os.ReadFile(filepath.Join(out, "h")); err == nil && string(b) == "host" {
				t.Error("a file of the host is in the result")
			}
		})
	}
	t.Run("cut short", func(t *testing.T) {
		whole := tarball(t, file, regular("f", strings.Repeat("x", 100_000)))
		if r := d.runContext(t.Context(), whole[:len(whole)/2], "build", "-o", "type=cacheonly", "-"); r.code != 1 {
			t.Errorf("exit %d\n%s", r.code, r.all())
		}
	})
}

// A small archive that is large once unpacked must not be held in memory.
func TestGzipBombStaysOutOfMemory(t *testing.T) {
	d := startDaemon(t)
	const size = 512 << 20
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	df := "FROM scratch\nCOPY small /\n"
	for _, h := range []tar.Header{{Name: "Dockerfile", Size: int64(len(df)), Mode: 0o644}, {Name: "small", Mode: 0o644}, {Name: "bomb", Size: size, Mode: 0o644}} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Name == "Dockerfile" {
			_, _ = w.Write([]byte(df))
		}
	}
	zeros := make([]byte, 1<<20)
	for range size >> 20 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	r := d.runContext(t.Context(), b.Bytes(), "build", "-o", "type=cacheonly", "-")
	if r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.all())
	}
	if peak := d.memory("VmHWM"); peak > 400<<10 {
		t.Errorf("the daemon grew to %d kB", peak)
	}
}

// memory reads a line of the daemon's status, in kB.
func (d *daemon) memory(line string) int {
	d.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				d.t.Fatal(err)
			}
			return n
		}
	}
	d.t.Fatalf("no %s", line)
	return 0
}

func TestLinksStayInside(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	host := canary(t)
	// What links name is looked up in the stage, where the host's file is not.
	d.expect("FROM base AS evil\nRUN ln -s / /x && mkdir -p /etc && echo own > /etc/passwd && ln -s ../../../../../../etc /up\nFROM scratch\nCOPY --from=evil x/etc/passwd /one\nCOPY --from=evil up/passwd /two\n",
		map[string]string{"one": "own", "two": "own"}, bb)
	d.fail("FROM base AS evil\nRUN ln -s / /x && ln -s ../../../../../.. /up\nFROM scratch\nCOPY --from=evil /x"+host+" /f\n", []string{"not found"}, bb)
	d.fail("RUN ln -s "+filepath.Dir(host)+" /etc2; ln -s ../../../../../../.. /up\nFROM scratch\nCOPY --from=base /up"+host+" /f\n", []string{"not found"}, bb)
	dir := dockerfile(t, "COPY link/../../etc/passwd /f\n")
	if err := os.Symlink(filepath.Dir(host), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if r := d.run("build", bb, "-o", "type=cacheonly", dir); r.code != 1 || !strings.Contains(r.errOut, "not found") {
		t.Errorf("COPY through a link out of the context: exit %d\n%s", r.code, r.all())
	}
	// Writing through a link: WORKDIR, COPY and a mount go where the link leads inside.
	evil := filepath.Dir(host)
	d.expect("RUN ln -s "+evil+" /w\nWORKDIR /w/made\nCOPY <<EOT /w/canary\nevil\nEOT\nRUN --mount=type=tmpfs,target=/w/mnt cat "+host+" > /seen\n", map[string]string{"seen": "evil"}, bb)
	if left := list(t, evil); len(left) != 1 {
		t.Errorf("the host's directory now has %q", left)
	}
	if _, err := os.Stat(filepath.Join(evil, "made")); err == nil {
		t.Error("WORKDIR made a directory on the host")
	}
	// A user database that is a link out is none of the host's.
	d.fail("RUN rm -rf /etc && ln -s ../../../../../../../../"+evil+" /etc\nUSER daemon\nRUN id\n", []string{"daemon"}, bb)
}

func TestLocalExportStaysInside(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	target := filepath.Dir(canary(t))
	out := t.TempDir()
	d.build(bb, "-o", out, dockerfile(t, "FROM base AS made\nRUN mkdir /r && ln -s "+target+" /r/out\nFROM scratch\nCOPY --from=made /r /\n"))
	r := d.run("build", "-o", out, write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY <<EOT /out/canary\nevil\nEOT\nCOPY <<EOT /out/x\nevil\nEOT\n"}))
	// The result has a directory where the link was: it takes the link's place.
	if r.code != 0 || read(t, out, "out/x") != "evil\n" {
		t.Errorf("exit %d\n%s", r.code, r.all())
	}
	if left := list(t, target); len(left) != 1 {
		t.Errorf("outside there is now %q", left)
	}
}

func TestHugeDockerfiles(t *testing.T) {
	d := startDaemon(t)
	var many strings.Builder
	many.WriteString("FROM scratch\n")
	for i := range 10_000 {
		fmt.Fprintf(&many, "LABEL l%d=%d\n", i, i)
	}
	r := d.run("build", "-o", "type=cacheonly", write(t, map[string]string{"Dockerfile": many.String()}))
	if r.code != 0 && !strings.Contains(r.errOut, "ERROR: ") {
		t.Errorf("10000 instructions: exit %d\n%.2000s", r.code, r.all())
	}
	var nested strings.Builder
	nested.WriteString("FROM scratch\nCOPY")
	for i := range 30 {
		fmt.Fprintf(&nested, " <<E%d", i)
	}
	nested.WriteString(" /d/\n")
	for i := range 30 {
		fmt.Fprintf(&nested, "body %d\nE%d\n", i, i)
	}
	out := t.TempDir()
	d.build("-o", out, write(t, map[string]string{"Dockerfile": nested.String()}))
	if got := read(t, out, "d/E29"); got != "body 29\n" {
		t.Errorf("the 30th heredoc: %q", got)
	}
}

// Whatever is written to the socket, the daemon serves others, and keeps neither memory nor descriptors.
func TestHostileConnections(t *testing.T) {
	d := startDaemon(t)
	dir := write(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	d.build("-o", "type=cacheonly", dir)
	before := d.descriptors()
	for _, text := range []string{
		"", "\x00\xff\xfe garbage", "PRI * HTTP/2.0\r\n\r\nSM", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 1000),
		"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 3<<20) + "\r\n\r\n", "POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: u\r\n\r\nnot http2",
		"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nnot http2", "\x16\x03\x01\x02\x00\x01\x00",
	} {
		conn, err := net.Dial("unix", d.socket)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = conn.Write([]byte(text)) // the daemon may hang up before all is written
		_ = conn.Close()
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 150 {
				conn, err := net.Dial("unix", d.socket)
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.Close()
			}
		})
	}
	wg.Wait()
	d.build("-o", "type=cacheonly", dir)
	waitFor(t, "connections to be forgotten", func() bool { return d.descriptors() < before+30 })
	if rss := d.memory("VmRSS"); rss > 400<<10 {
		t.Errorf("the daemon holds %d kB", rss)
	}
}
