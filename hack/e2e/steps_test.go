package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// dockerfile makes a context with a Dockerfile that begins with base.
func dockerfile(t *testing.T, text string) string {
	t.Helper()
	return write(t, map[string]string{"Dockerfile": base + text})
}

// expect builds a Dockerfile into a directory and compares files there.
func (d *daemon) expect(text string, want map[string]string, args ...string) result {
	d.t.Helper()
	out := d.t.TempDir()
	r := d.build(append(args, "-o", out, dockerfile(d.t, text))...)
	for file, content := range want {
		if got := strings.TrimSpace(read(d.t, out, file)); got != content {
			d.t.Errorf("%s: got %q, want %q", file, got, content)
		}
	}
	return r
}

// fail builds a Dockerfile that must fail with these words.
func (d *daemon) fail(text string, words []string, args ...string) {
	d.t.Helper()
	r := d.run(append(append([]string{"build", "--progress", "plain", "-o", "type=cacheonly"}, args...), dockerfile(d.t, text))...)
	if r.code != 1 {
		d.t.Errorf("exit %d, want 1", r.code)
	}
	for _, w := range words {
		if !strings.Contains(r.errOut, w) {
			d.t.Errorf("nothing says %q:\n%s", w, r.errOut)
		}
	}
}

func TestCacheMounts(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	d.expect(`RUN --mount=type=cache,id=x,target=/c,uid=12,gid=34,mode=0710 stat -c '%u %g %a' /c > /stat; echo kept > /c/f
RUN --mount=type=cache,target=/elsewhere,id=x,uid=12,gid=34,mode=0710 cat /elsewhere/f > /again
RUN --mount=type=cache,target=/c,id=x,uid=12,gid=34,mode=0710,readonly sh -c 'echo x > /c/g' || echo refused > /ro
RUN ls -A /c 2>/dev/null | wc -l > /left
`, map[string]string{"stat": "12 34 710", "again": "kept", "ro": "refused", "left": "0"}, bb)
	d.expect(`FROM scratch AS seed
COPY --from=base /bin/busybox /seeded
FROM base
RUN --mount=type=cache,id=seeded,target=/c,from=seed ls /c > /first; echo more > /c/more
RUN --mount=type=cache,id=seeded,target=/c,from=seed ls /c | tr '\n' ' ' > /second
`, map[string]string{"first": "seeded", "second": "more seeded"}, bb)
}

// Steps of one build use a cache mount at the same time: shared ones meet in it, locked ones follow each other, private ones have
// their own. Steps that wait for each other prove that independent stages run at the same time.
func TestCacheMountSharing(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	two := func(step func(mine, other string) string) string {
		return "FROM base AS a\n" + step("a", "b") + "FROM base AS b\n" + step("b", "a") + "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
	}
	wait := "n=0; until test -e %s; do n=$((n+1)); test $n -lt 300 || exit 9; sleep 0.1; done; "
	d.expect(two(func(mine, other string) string {
		return "RUN --mount=type=cache,id=meet,target=/c touch /c/" + mine + "; " + fmt.Sprintf(wait, "/c/"+other) + "echo met > /" + mine + "\n"
	}), map[string]string{"a": "met", "b": "met"}, bb)

	d.expect(two(func(mine, _ string) string {
		return "RUN --mount=type=cache,id=lock,sharing=locked,target=/c mkdir /c/inside && sleep 0.3 && rmdir /c/inside && echo alone > /" + mine + "\n"
	}), map[string]string{"a": "alone", "b": "alone"}, bb)

	// A shared mount is where the two with private ones tell each other that they are there.
	d.expect(two(func(mine, other string) string {
		return "RUN --mount=type=cache,id=own,sharing=private,target=/c --mount=type=cache,id=signal,target=/s touch /c/" + mine + " /s/" + mine + "; " +
			fmt.Sprintf(wait, "/s/"+other) + "ls /c > /" + mine + "\n"
	}), map[string]string{"a": "a", "b": "b"}, bb)
}

func TestOtherMounts(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	t.Setenv("SECRET", "hush")
	d.expect(`FROM base AS src
RUN mkdir /d && echo source > /d/f
FROM base
RUN --mount=type=bind,from=src,source=/d,target=/m cat /m/f > /bind; echo x > /m/new || echo refused > /ro
RUN --mount=type=bind,from=src,source=/d/f,target=/one/file cat /one/file > /single
RUN --mount=type=bind,from=src,source=/d,target=/m,rw echo changed > /m/f && cat /m/f > /rw
RUN --mount=type=bind,from=src,source=/d,target=/m cat /m/f > /unchanged
RUN --mount=type=tmpfs,target=/t,size=1048576 head -c 900000 /dev/zero > /t/a && ! head -c 900000 /dev/zero > /t/b 2>/dev/null && stat -f -c %T /t > /tmpfs
RUN ls /t 2>/dev/null | wc -l > /aftertmpfs
RUN --mount=type=secret,id=S,env=VALUE echo ${VALUE} | tr a-z A-Z > /secretenv
RUN --mount=type=secret,id=S,target=/etc/deep/s,uid=5,gid=6,mode=0440 stat -c '%u %g %a' /etc/deep/s > /secretmode
RUN echo "[$VALUE]" > /secretgone
`, map[string]string{"bind": "source", "ro": "refused", "single": "source", "rw": "changed", "unchanged": "source", "tmpfs": "tmpfs", "aftertmpfs": "0",
		"secretenv": "HUSH", "secretmode": "5 6 440", "secretgone": "[]"}, bb, "--secret", "id=S,env=SECRET")
	d.fail("RUN --mount=type=bind,from=base,source=/absent,target=/m true\n", []string{"/absent"}, bb)
}

// agentProgram asks the agent of its environment for its keys and for signatures, and tries to change it.
const agentProgram = `package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"os"

	"golang.org/x/crypto/ssh/agent"
)

func main() {
	conn, err := net.Dial("unix", os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	a := agent.NewClient(conn)
	keys, err := a.List()
	fmt.Println("keys:", len(keys), err)
	for _, k := range keys {
		sig, err := a.Sign(k, []byte("data"))
		fmt.Println("key:", k.Comment, err, k.Verify([]byte("data"), sig))
	}
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	fmt.Println("refused:", a.Add(agent.AddedKey{PrivateKey: key}) != nil, a.RemoveAll() != nil, a.Lock([]byte("x")) != nil)
}
`

// buildAgentProgram builds it inside the module, so with the module's version of the protocol.
func buildAgentProgram(t *testing.T) string {
	t.Helper()
	need(t, "go")
	src, err := os.MkdirTemp(".", "agentprogram")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(src)
	if err := os.WriteFile(filepath.Join(src, "main.go"), []byte(agentProgram), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "ask"), "./"+src)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func TestSSHMount(t *testing.T) {
	need(t, "ssh-keygen")
	key := filepath.Join(t.TempDir(), "key")
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "my-key", "-f", key)
	socket := startAgent(t, key)
	d := startDaemon(t)
	bb, ask := busyboxContext(t), "--build-context=ask="+buildAgentProgram(t)
	dir := dockerfile(t, `COPY --from=ask ask /ask
RUN --mount=type=ssh echo as root; /ask
USER 1234:567
RUN --mount=type=ssh,uid=1234,gid=567,mode=0600 stat -c 'socket: %u %g %a' $SSH_AUTH_SOCK; /ask
USER 0
RUN --mount=type=ssh,target=/my/agent.sock echo "here: $SSH_AUTH_SOCK"
RUN echo "gone: [$SSH_AUTH_SOCK]"
`)
	for _, ssh := range []string{socket, key} {
		r := d.build(bb, ask, "--ssh", "default="+ssh, "--no-cache", "-o", "type=cacheonly", dir)
		for want, times := range map[string]int{
			"keys: 1 <nil>": 2, " <nil> <nil>": 2, "refused: true true true": 2, "socket: 1234 567 600": 1, "here: /my/agent.sock": 1, "gone: []": 1,
		} {
			if strings.Count(r.errOut, want) != times {
				t.Errorf("--ssh default=%s: not %d times %q:\n%s", ssh, times, want, r.errOut)
			}
		}
	}
	if left := run(t, "sh", "-c", "SSH_AUTH_SOCK="+socket+" ssh-add -l"); !strings.Contains(left, "my-key") || strings.Count(left, "\n") != 1 {
		t.Errorf("the user's agent now has %q", left)
	}
	d.fail("RUN --mount=type=ssh,required=true true\n", []string{`no SSH key "default" forwarded from the client`}, bb)
	d.expect("RUN --mount=type=ssh test ! -S \"$SSH_AUTH_SOCK\" && echo none > /x\n", map[string]string{"x": "none"}, bb)
}

func TestNetworkAndSecurityModes(t *testing.T) {
	config := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(config, []byte("insecure-entitlements = [\"network.host\", \"security.insecure\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "--config", config)
	bb := busyboxContext(t)
	hostNet, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	d.expect("RUN --network=none ls /sys/class/net > /nets\n", map[string]string{"nets": "lo"}, bb)
	d.expect("RUN ls /sys/class/net > /nets\n", map[string]string{"nets": "lo"}, bb, "--network", "none")
	d.expect("RUN --network=host readlink /proc/self/ns/net > /ns\n", map[string]string{"ns": hostNet}, bb, "--allow", "network.host")
	d.fail("RUN --network=host true\n", []string{"network.host is not allowed"}, bb)
	const caps = "0x$(grep CapEff /proc/self/status | cut -f2)"
	// Bit 21 is CAP_SYS_ADMIN.
	d.expect("RUN echo $(( ("+caps+" >> 21) & 1 )) > /plain\nRUN --security=insecure echo $(( ("+caps+" >> 21) & 1 )) > /insecure; mkdir /m; mount -t tmpfs x /m && echo mounted > /mounted\n",
		map[string]string{"plain": "0", "insecure": "1", "mounted": "mounted"}, bb, "--allow", "security.insecure")
	d.fail("RUN --security=insecure true\n", []string{"security.insecure is not allowed"}, bb)
	d.fail("RUN mkdir /m; mount -t tmpfs x /m\n", []string{"ermission denied"}, bb)
}

func TestLimitsOfSteps(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	d.expect("RUN df -k /dev/shm | tail -1 | awk '{print $2}' > /shm; ulimit -S -n > /soft; ulimit -H -n > /hard; ulimit -c > /core\n",
		map[string]string{"shm": "32768", "soft": "321", "hard": "654", "core": "0"}, bb, "--shm-size", "32m", "--ulimit", "nofile=321:654", "--ulimit", "core=0")
	hosts := []string{bb, "--add-host", "extra:10.1.2.3", "--add-host", "six=[2001:db8::7]"}
	r := d.build(append(hosts, "-o", "type=cacheonly", dockerfile(t, "RUN cat /etc/hosts\n"))...)
	for _, want := range []string{"10.1.2.3\textra", "2001:db8::7\tsix", "127.0.0.1"} {
		if !strings.Contains(r.errOut, want) {
			t.Errorf("no %q in /etc/hosts:\n%s", want, r.errOut)
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err == nil {
		d.expect("RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes > /limit 2>/dev/null || cat /sys/fs/cgroup/memory.max > /limit\n",
			map[string]string{"limit": strconv.Itoa(64 << 20)}, bb, "-m", "64m")
		d.fail("RUN head -c 200m /dev/zero | tail -n 1 > /dev/null\n", []string{"memory", ">>> RUN head -c 200m"}, bb, "-m", "32m", "--memory-swap", "32m")
	}
}

func TestInstructions(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	d.expect(`RUN mkdir -p /etc /home/u && echo 'root:x:0:0::/root:/bin/sh' > /etc/passwd && echo 'u:x:77:88::/home/u:/bin/sh' >> /etc/passwd && printf 'root:x:0:\ng:x:99:u\nextra:x:55:u\n' > /etc/group
RUN echo $HOME > /roothome
WORKDIR /made/for/me
WORKDIR sub
RUN pwd > /pwd; mkdir -m 777 /out
USER u
RUN id -u > /out/id; id -g >> /out/id; id -G | tr ' ' '\n' | sort -n >> /out/id; echo $HOME > /out/home
USER u:g
RUN id -g > /out/gid
USER 4321
RUN id -u > /out/numeric; echo $HOME > /out/numerichome
`, map[string]string{"roothome": "/root", "pwd": "/made/for/me/sub", "out/id": "77\n88\n55\n88\n99", "out/home": "/home/u",
		"out/gid": "99", "out/numeric": "4321", "out/numerichome": "/"}, bb)
	d.fail("USER nobody-knows\nRUN true\n", []string{"nobody-knows"}, bb)

	d.expect(`ENV VALUE=value
RUN <<EOF
echo one > /one
echo two > /two
EOF
RUN <<-"EOT" sh -e
	echo "$HOME \$not" > /three
	EOT
COPY <<FIRST <<"SECOND" /files/
expanded $VALUE
FIRST
literal $VALUE
SECOND
COPY --chmod=0600 --chown=3:4 <<EOF /owned
x
EOF
RUN stat -c '%u %g %a' /owned > /stat
`, map[string]string{"one": "one", "two": "two", "files/SECOND": "literal $VALUE", "files/FIRST": "expanded value", "stat": "3 4 600", "three": "/root $not"}, bb)

	d.expect(`FROM base AS one
ARG A=default
ARG B=default
ENV B=env E=env
RUN echo "$A $B $E" > /first
ARG LATE
RUN echo "$LATE ${NONE:-alt} ${A:+set}" > /late
FROM base
RUN echo "[$A] [$B]" > /scoped
COPY --from=one /first /late /
`, map[string]string{"first": "given env env", "late": "later alt set", "scoped": "[] []"}, bb, "--build-arg", "A=given", "--build-arg", "B=ignored", "--build-arg", "LATE=later")

	d.expect(`FROM base AS parent
ONBUILD RUN echo triggered > /onbuild
FROM parent
RUN cat /onbuild > /seen
`, map[string]string{"seen": "triggered"}, bb)
	d.expect("SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN echo $- > /flags\nRUN [\"sh\", \"-c\", \"echo exec $0 > /exec\", \"zero\"]\n", map[string]string{"flags": "ce", "exec": "exec zero"}, bb)
}

func TestOnlyWhatIsNeededRuns(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	text := "FROM base AS unused\nRUN exit 7\nFROM base AS wanted\nRUN echo wanted > /it\nFROM wanted AS after\nRUN exit 8\n"
	r := d.expect(text, map[string]string{"it": "wanted"}, bb, "--target", "wanted")
	if strings.Contains(r.errOut, "exit 7") || strings.Contains(r.errOut, "exit 8") {
		t.Errorf("steps that nobody asked for were shown:\n%s", r.errOut)
	}
	d.fail(text, []string{"exit code: 8", ">>> RUN exit 8"}, bb)
	// One branch fails: the other is stopped, and the error is the failure, not the stop.
	d.fail("FROM base AS slow\nRUN sleep 300; echo x > /x\nFROM base AS broken\nRUN sleep 0.5; exit 6\nFROM scratch\nCOPY --from=slow /x /\nCOPY --from=broken /x /\n",
		[]string{"exit code: 6"}, bb)
}

func TestHowStepsEnd(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	for _, test := range []struct {
		text string
		want []string
	}{
		{"RUN [\"no-such-program\"]\n", []string{"no-such-program", ">>> RUN"}},
		{"RUN [\"/bin\"]\n", []string{"/bin", "ermission denied"}},
		{"RUN echo '#!/no/interpreter' > /s; chmod +x /s\nRUN [\"/s\"]\n", []string{"no such file"}},
		{"RUN sh -c 'kill -9 $$'; exit $?\n", []string{"exit code: 137"}},
		{"RUN echo to-both; echo to-err >&2; exit 255\n", []string{"to-both", "to-err", "exit code: 255"}},
		{"SHELL [\"/no/shell\", \"-c\"]\nRUN true\n", []string{"/no/shell"}},
	} {
		d.fail(test.text, test.want, bb)
	}
	// What a step leaves running ends with it.
	d.expect("RUN sleep 14142 & echo started > /x\n", map[string]string{"x": "started"}, bb)
	if left := processesNaming("sleep\x0014142"); len(left) > 0 {
		t.Errorf("a step left %q", left)
	}
}

func TestOutputArrivesWhole(t *testing.T) {
	d := startDaemon(t)
	bb := busyboxContext(t)
	// Five megabytes of numbered lines, then a byte of every value.
	const lines = 700_000
	dir := dockerfile(t, "COPY bytes /\nRUN seq -w 1 "+strconv.Itoa(lines)+"; cat /bytes; echo; echo the end\n")
	var want []byte
	for i := range lines {
		want = fmt.Appendf(want, "%06d\n", i+1)
	}
	var every []byte
	for i := range 256 {
		every = append(every, byte(i))
	}
	want = append(append(want, every...), "\nthe end\n"...)
	if err := os.WriteFile(filepath.Join(dir, "bytes"), every, 0o644); err != nil {
		t.Fatal(err)
	}
	r := d.build(bb, "-o", "type=cacheonly", dir)
	next := 1
	for line := range strings.Lines(r.errOut) {
		line = strings.TrimSuffix(line, "\n")
		if number := fmt.Sprintf("%06d", next); strings.HasPrefix(line, "#") && strings.HasSuffix(line, " "+number) {
			next++
		}
	}
	if next != lines+1 || !strings.Contains(r.errOut, "the end") {
		t.Errorf("plain: %d of %d lines arrived in order", next-1, lines)
	}
	raw := d.run("build", "--progress", "rawjson", bb, "--no-cache", "-o", "type=cacheonly", dir)
	var got []byte
	decoder := json.NewDecoder(strings.NewReader(raw.all()))
	for decoder.More() {
		var m struct {
			Logs []struct{ Data []byte }
		}
		if err := decoder.Decode(&m); err != nil {
			t.Fatalf("rawjson: %v", err)
		}
		for _, l := range m.Logs {
			got = append(got, l.Data...)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("rawjson: %d bytes arrived, not the %d that were written", len(got), len(want))
	}
}
