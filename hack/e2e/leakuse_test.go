package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

const fixedTimes = "1700000000"

// digestOf builds reproducibly and returns the image's digest.
func (w leakWorld) digestOf(t *testing.T, b leakBuild) string {
	t.Helper()
	var archive bytes.Buffer
	b.exports = image(&archive)
	b.exports[0].Attrs["rewrite-timestamp"] = "true"
	attrs := map[string]string{"build-arg:SOURCE_DATE_EPOCH": fixedTimes, "no-cache": ""}
	for k, v := range b.attrs {
		attrs[k] = v
	}
	b.attrs = attrs
	got := w.run(t, b)
	if got.err != nil {
		t.Fatal(got.err)
	}
	if found := tracesIn(got.all); len(found) > 0 {
		t.Errorf("the client is told %q", found)
	}
	return got.digest
}

// TestSecretsUsedWell builds what uses secrets and lets none out: nothing of it is changed.
func TestSecretsUsedWell(t *testing.T) {
	w := newLeakWorld(t)
	lax := newLeakWorld(t, "--config", configFile(t, "[slipway]\nsecretLeaks = \"warn\"\n"))
	for name, text := range map[string]string{
		"compared":              withTok + `test "$T" = "$(head -n 1 /run/secrets/tok)" && echo right > /answer`,
		"hashed":                withTok + `echo "$T" | sha256sum > /sum`,
		"counted":               withTok + `echo "${#T}" > /length`,
		"sent":                  withTok + `wget -q --header "Authorization: $T" http://127.0.0.1:1/ || echo refused > /answer`,
		"in the environment":    withEnv + `test -n "$TOK" && echo set > /answer`,
		"in a file, removed":    withTok + `echo "$T" > /x && rm /x && echo y > /y`,
		"in memory":             withTok + `echo "$T" > /dev/shm/x && echo y > /y`,
		"in a tmpfs":            "RUN --mount=type=tmpfs,target=/m --mount=type=secret,id=tok cp /run/secrets/tok /m/x && echo y > /y",
		"in a bind, not kept":   "RUN --mount=type=bind,target=/b,rw --mount=type=secret,id=tok cp /run/secrets/tok /b/x && echo y > /y",
		"at a place of its own": "RUN --mount=type=secret,id=tok,target=/root/.npmrc,mode=0444 test -s /root/.npmrc && echo y > /y",
		"as somebody else":      "RUN --mount=type=secret,id=tok,uid=7,gid=7 test -s /run/secrets/tok && echo y > /y",
		"a part of it":          withTok + `echo "$T" | cut -c 1-7 > /hint`,
		"a key's first line":    withKey + `head -n 1 /key > /armor`,
		"much beside it":        withTok + `test -n "$T"; seq 200000 > /numbers; head -c 3000000 /dev/zero > /zeros`,
		"archives beside it":    withTok + `test -n "$T"; seq 20000 | gzip -n > /n.gz; (seq 2000 | gzip -n; echo trailing) > /odd.gz; printf '\037\213\010broken' > /broken.gz`,
		"a short one":           "RUN --mount=type=secret,id=pin cp /run/secrets/pin /pin",
	} {
		t.Run(name, func(t *testing.T) {
			b := leakBuild{dockerfile: leakBase + text + "\n"}
			if strict, without := w.digestOf(t, b), lax.digestOf(t, b); strict == "" || strict != without {
				t.Errorf("the image is %s, and %s where leaks are no matter", strict, without)
			}
		})
	}
	w.checkKept(t)
}

// holding lists the files below the daemon's layers that hold a secret.
func (w leakWorld) holding(t *testing.T) (list []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(w.root, "layers"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if len(tracesIn(b)) > 0 {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return list
}

// TestAllowedLeaksAreForWhoAllowsThem lets a secret pass, and sees that a build that does not gets nothing of it.
func TestAllowedLeaksAreForWhoAllowsThem(t *testing.T) {
	w := newLeakWorld(t)
	const allow = "build-arg:SLIPWAY_ALLOW_SECRET_LEAK"
	var archive bytes.Buffer
	build := func(ids string, text string) told {
		archive.Reset()
		b := leakBuild{dockerfile: base + text, exports: image(&archive), attrs: map[string]string{}}
		if ids != "" {
			b.attrs[allow] = ids
		}
		return w.run(t, b)
	}
	single := "FROM base\n" + withTok + "echo \"$T\" > /leak\n"
	staged := "FROM base AS one\n" + withTok + "echo \"$T\" > /leak\nFROM base\nCOPY --from=one /leak /copied\nRUN cp /copied /again\n"
	for _, text := range []string{single, staged} {
		for range 2 {
			if got := build("", text); got.err == nil || !strings.Contains(got.err.Error(), `secret "tok"`) {
				t.Fatalf("not allowed: %v", got.err)
			}
		}
		if list := w.holding(t); len(list) > 0 {
			t.Errorf("after a refusal the secret is in %s", list)
		}
		if got := build("key, other", text); got.err == nil {
			t.Error("another secret is allowed, and this one passes")
		}
	}
	for _, text := range []string{single, staged} {
		for _, ids := range []string{"tok", "key,tok", "tok"} {
			got := build(ids, text)
			if got.err != nil {
				t.Fatal(got.err)
			}
			if !bytes.Contains(archive.Bytes(), []byte(theSecret)) {
				t.Error("what is allowed is not in the image")
			}
			if found := tracesIn(got.all); len(found) > 0 {
				t.Errorf("what is allowed in the image is told: %q", found)
			}
		}
		if got := build("", text); got.err == nil {
			t.Error("a build that does not allow it got what one made that does")
		}
	}
	out := write(t, nil)
	dir := dirWithBusybox(t, map[string]string{"Dockerfile": strings.Replace(leakBase, "--from=busybox ", "", 1) + withTok + "echo \"$T\" > /leak\n"})
	secret := filepath.Join(write(t, map[string]string{"s": theSecret}), "s")
	args := []string{"build", "--progress", "plain", "--secret", "id=tok,src=" + secret, "-o", out, dir}
	if r := w.daemon.run(args...); r.code == 0 || !strings.Contains(r.errOut, "allow it with --allow-secret-leak=tok") || !strings.Contains(r.errOut, ">>> RUN") || len(tracesIn([]byte(r.all()))) > 0 {
		t.Errorf("slipway: exit %d\n%s", r.code, r.all())
	}
	if r := w.daemon.run(slices.Insert(slices.Clone(args), 1, "--allow-secret-leak=tok,key")...); r.code != 0 || strings.TrimSpace(read(t, out, "leak")) != theSecret {
		t.Errorf("slipway: exit %d\n%s", r.code, r.all())
	}
}

// TestLeaksMayOnlyBeWarnedOf runs a daemon whose operator wants it so.
func TestLeaksMayOnlyBeWarnedOf(t *testing.T) {
	w := newLeakWorld(t, "--config", configFile(t, "[slipway]\nsecretLeaks = \"warn\"\n"))
	var archive bytes.Buffer
	text := leakBase + withTok + "echo \"$T\" > /leak\nENV LEAK=" + quoted(theSecret) + "\n"
	got := w.run(t, leakBuild{dockerfile: text, exports: image(&archive)})
	if got.err != nil || !bytes.Contains(archive.Bytes(), []byte(theSecret)) {
		t.Fatalf("%v", got.err)
	}
	if !strings.Contains(got.warn, "content of /leak") || !strings.Contains(got.warn, "LEAK") || len(tracesIn(got.all)) > 0 {
		t.Errorf("warnings: %s", got.warn)
	}
}

// TestSharedStepsKeepEachBuildsSecrets runs two builds with secrets of their own that share a step.
func TestSharedStepsKeepEachBuildsSecrets(t *testing.T) {
	w := newLeakWorld(t)
	text := leakBase + withTok + "for i in $(seq 20); do echo \"$i $T\"; sleep 0.1; done; echo y > /y\n"
	var eg errgroup.Group
	all := make([]told, 4)
	for i := range all {
		eg.Go(func() error {
			all[i] = w.run(t, leakBuild{dockerfile: text, secrets: map[string][]byte{"tok": fmt.Appendf(nil, "value-of-build-%d", i)}})
			return nil
		})
	}
	_ = eg.Wait()
	for i, got := range all {
		if got.err != nil || strings.Contains(string(got.all), "value-of-build") || strings.Count(got.logs, "***") < 20 {
			t.Errorf("build %d: %v\n%s", i, got.err, got.logs)
		}
	}
	// One that lets its secret out fails alone.
	text = leakBase + "RUN --mount=type=secret,id=tok --mount=type=secret,id=other sleep 2; cp /run/secrets/tok /t\nCOPY f /f\n"
	for i := range 2 {
		eg.Go(func() error {
			b := leakBuild{dockerfile: text, files: map[string]string{"f": "contents-of-f"}, secrets: map[string][]byte{"tok": fmt.Appendf(nil, "short%d", i)}}
			if i == 1 {
				b.secrets["other"] = []byte("contents-of-f")
			}
			all[i] = w.run(t, b)
			return nil
		})
	}
	_ = eg.Wait()
	if all[0].err != nil || all[1].err == nil || !strings.Contains(all[1].err.Error(), `secret "other"`) {
		t.Errorf("the innocent one: %v\nthe other: %v", all[0].err, all[1].err)
	}
}

// TestCredentialsInPlainSightAreWarnedOf passes credentials as what they should not be.
func TestCredentialsInPlainSightAreWarnedOf(t *testing.T) {
	w := newLeakWorld(t)
	key, token := "AKIA"+"IOSFODNN7EXAMPLE", "ghp_"+strings.Repeat("a1B2", 9)
	got := w.run(t, leakBuild{
		dockerfile: "FROM scratch\nARG A B PLAIN\nENV GITHUB=" + token + "\nCOPY f /\n", files: map[string]string{"f": "f"}, exports: image(&bytes.Buffer{}),
		attrs: map[string]string{"build-arg:A": key, "build-arg:B": "x=" + token, "build-arg:PLAIN": "1.2.3"},
	})
	if got.err != nil {
		t.Fatal(got.err)
	}
	for _, want := range []string{`build argument "A" looks like an AWS access key`, `build argument "B" looks like a GitHub token`, `environment variable "GITHUB" of the image looks like a GitHub token`} {
		if strings.Count(got.warn, want) != 1 {
			t.Errorf("not said once: %s\nin %s", want, got.warn)
		}
	}
	if strings.Contains(got.warn, "PLAIN") || strings.Contains(got.warn, key) || strings.Contains(got.warn, token) {
		t.Errorf("warnings: %s", got.warn)
	}
}

// TestSecretsAndDockersClient does with docker's client what its users do.
func TestSecretsAndDockersClient(t *testing.T) {
	c := sessionDocker(t)
	d := startDaemon(t)
	c.withBase(t, d)
	secret := filepath.Join(write(t, map[string]string{"s": theSecret + "\n"}), "s")
	build := func(text string, flags ...string) result {
		dir := write(t, map[string]string{"Dockerfile": "FROM bb\n" + text})
		return c.run(t, d, nil, append([]string{"build", "--secret", "id=tok,src=" + secret, dir}, flags...)...)
	}
	r := build(withTok + "echo \"token: $T\"; sh -xc ': $0' \"$T\"\n")
	if r.code != 0 || len(tracesIn([]byte(r.all()))) > 0 || !strings.Contains(r.all(), "token: ***") {
		t.Errorf("a log: exit %d\n%s", r.code, r.all())
	}
	r = build(withTok + "false \"$T\"; cat \"/$T\"\n")
	if r.code == 0 || len(tracesIn([]byte(r.all()))) > 0 || !strings.Contains(r.all(), "/***") {
		t.Errorf("an error: exit %d\n%s", r.code, r.all())
	}
	leaky := withTok + "mkdir /root; echo \"//r/:_authToken=$T\" > /root/.npmrc\n"
	r = build(leaky)
	if r.code == 0 || len(tracesIn([]byte(r.all()))) > 0 || !strings.Contains(r.all(), `secret "tok"`) || !strings.Contains(r.all(), "content of /root/.npmrc") {
		t.Errorf("a leak: exit %d\n%s", r.code, r.all())
	}
	if r = build(leaky, "--build-arg", "SLIPWAY_ALLOW_SECRET_LEAK=tok"); r.code != 0 {
		t.Errorf("an allowed leak: exit %d\n%s", r.code, r.all())
	}
}
