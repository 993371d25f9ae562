package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"golang.org/x/sync/errgroup"
)

// theSecret looks different in every encoding. theKey has the shape of a private key, and thePin is too short to be searched for.
const (
	theSecret = "tok3n-Of/the+build=\"7'<é"
	theKey    = `-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDFp4pQY8xvKlbwHq2Z1mJYQ3wUeIhXzWcSfw5fZyUqWgAAAJgqkq1HKpKt
RwAAAAtzc2gtZWQyNTUxOQAAACDFp4pQY8xvKlbwHq2Z1mJYQ3wUeIhXzWcSfw5fZyUqWg
-----END OPENSSH PRIVATE KEY-----
`
	thePin = "0815x"
)

// shapesOf lists the texts by which a secret is known in what a client sees or the daemon keeps, whatever it went through.
func shapesOf(value string) []string {
	b := []byte(value)
	std := base64.StdEncoding.EncodeToString(b)
	return []string{
		value, hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)), std[:len(std)-4], base64.URLEncoding.EncodeToString(b)[:len(std)-4],
		base64.StdEncoding.EncodeToString([]byte("user:" + value))[8:len(std)], url.QueryEscape(value), url.PathEscape(value), fmt.Sprintf("% x", b),
	}
}

// tracesIn lists what of the secrets is in a text.
func tracesIn(text []byte) (found []string) {
	list := append(shapesOf(theSecret), strings.Split(theKey, "\n")[1:4]...)
	list = append(list, shapesOf(theKey)[1:5]...)
	for _, s := range list {
		if bytes.Contains(text, []byte(s)) {
			found = append(found, s)
		}
	}
	return found
}

// around is what stands before and after a secret in a text.
func around(text []byte, found []string) []byte {
	at := bytes.Index(text, []byte(found[0]))
	return text[max(0, at-200):min(len(text), at+200)]
}

// leakWorld is a daemon and a client that has secrets.
type leakWorld struct {
	*daemon
	client *bkclient.Client
}

func newLeakWorld(t *testing.T, args ...string) leakWorld {
	d := startDaemon(t, args...)
	return leakWorld{d, d.driver()}
}

// leakBuild is what a client asks.
type leakBuild struct {
	dockerfile string
	files      map[string]string
	attrs      map[string]string
	exports    []bkclient.ExportEntry
	// secrets replaces the usual ones.
	secrets map[string][]byte
}

// told is what a client hears of a build.
type told struct {
	err  error
	all  []byte // every byte of it
	logs string
	warn string
	// digest is the image's, "" if there is none.
	digest string
}

// run builds and returns all that was told.
func (w leakWorld) run(t *testing.T, b leakBuild) told {
	t.Helper()
	files := map[string]string{"Dockerfile": b.dockerfile}
	for k, v := range b.files {
		files[k] = v
	}
	secrets := b.secrets
	if secrets == nil {
		secrets = map[string][]byte{"tok": []byte(theSecret + "\n"), "key": []byte(theKey), "pin": []byte(thePin)}
	}
	opt := bkclient.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{}, Exports: b.exports,
		LocalMounts: localDirs(t, write(t, files), "context", "dockerfile"),
		Session:     []session.Attachable{secretsprovider.FromMap(secrets)},
	}
	for k, v := range localDirs(t, dirWithBusybox(t, nil), "busybox") {
		opt.LocalMounts[k] = v
	}
	for k, v := range b.attrs {
		opt.FrontendAttrs[k] = v
	}
	opt.FrontendAttrs["context:busybox"] = "local:busybox"
	var out told
	var all, logs, warn bytes.Buffer
	statuses := make(chan *bkclient.SolveStatus)
	eg, ctx := errgroup.WithContext(t.Context())
	eg.Go(func() error {
		for st := range statuses {
			text, err := json.Marshal(st)
			if err != nil {
				return err
			}
			all.Write(text)
			for _, l := range st.Logs {
				all.Write(l.Data)
				logs.Write(l.Data)
			}
			for _, v := range st.Vertexes {
				all.WriteString(v.Name + "\n" + v.Error + "\n")
			}
			for _, v := range st.Warnings {
				fmt.Fprintf(&warn, "%s %s\n", v.Short, v.Detail)
			}
		}
		return nil
	})
	eg.Go(func() error {
		res, err := w.client.Solve(ctx, nil, opt, statuses)
		if out.err = err; err == nil {
			out.digest = res.ExporterResponse["containerimage.digest"]
		}
		return nil
	})
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
	all.Write(warn.Bytes())
	if out.err != nil {
		st, _ := grpcerrors.AsGRPCStatus(grpcerrors.ToGRPC(context.Background(), out.err))
		all.WriteString(out.err.Error())
		all.WriteString(st.Proto().String())
	}
	// As one text: what is split over messages is as readable as what is not.
	all.WriteString(logs.String())
	out.all, out.logs, out.warn = all.Bytes(), logs.String(), warn.String()
	return out
}

// image collects an image as an archive.
func image(into *bytes.Buffer) []bkclient.ExportEntry {
	return []bkclient.ExportEntry{{
		Type: bkclient.ExporterOCI, Attrs: map[string]string{"compression": "uncompressed"},
		Output: func(map[string]string) (io.WriteCloser, error) { return nopCloser{into}, nil },
	}}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// leakBase begins every Dockerfile. T reads the secret in a shell.
const leakBase = base + "FROM base\n"

const (
	withTok = "RUN --mount=type=secret,id=tok T=$(cat /run/secrets/tok); "
	withEnv = "RUN --mount=type=secret,id=tok,env=TOK "
	withKey = "RUN --mount=type=secret,id=key,target=/key "
	used    = withTok + "test -n \"$T\"\n"
)

// TestSecretsAreMaskedInLogs prints secrets in every way that a shell has.
func TestSecretsAreMaskedInLogs(t *testing.T) {
	w := newLeakWorld(t)
	for name, step := range map[string]string{
		"cat":                      "RUN --mount=type=secret,id=tok cat /run/secrets/tok",
		"cat from another place":   "RUN --mount=type=secret,id=tok,target=/etc/tok cat /etc/tok",
		"echo":                     withTok + `echo "$T"`,
		"echo unquoted":            withTok + `echo say $T twice $T`,
		"printf":                   withTok + `printf %s "$T"`,
		"inside a word":            withTok + `printf 'x%sx\n' "$T"`,
		"twice without a gap":      withTok + `printf '%s%s\n' "$T" "$T"`,
		"stderr":                   withTok + `echo "$T" >&2`,
		"both streams":             withTok + `echo "$T"; echo "$T" >&2; echo "$T"`,
		"set -x":                   withTok + `set -x; : token "$T"; true $T`,
		"set":                      withTok + `set`,
		"set -v":                   withTok + `echo "true # $T" | sh -v`,
		"env":                      withEnv + `env`,
		"env in the environment":   withEnv + `echo "$TOK"`,
		"grep of env":              withEnv + `env | grep ^TOK`,
		"export -p":                withEnv + `export -p`,
		"environ of the process":   withEnv + `cat /proc/self/environ`,
		"environ as strings":       withEnv + `strings /proc/1/environ`,
		"command line":             withTok + `sh -c 'cat /proc/$$/cmdline; true' x "$T"`,
		"ps":                       withTok + `sh -c 'ps -o args; true' "$T"`,
		"heredoc":                  "RUN --mount=type=secret,id=tok <<EOF\ncat /run/secrets/tok\necho done\nEOF",
		"heredoc of a shell":       withTok + "cat <<EOF\ntoken: $T\nEOF",
		"tee":                      withTok + `echo "$T" | tee /dev/stderr > /dev/null`,
		"base64":                   "RUN --mount=type=secret,id=tok base64 /run/secrets/tok",
		"base64 of an account":     withTok + `printf 'user:%s' "$T" | base64`,
		"base64 one byte on":       withTok + `printf 'u%s' "$T" | base64 -w 0`,
		"base64 two bytes on":      withTok + `printf 'us%s!' "$T" | base64 -w 0`,
		"base64 for URLs":          withTok + `printf '%s' "$T" | base64 | tr +/ -_`,
		"uuencode -m":              withTok + `printf '%s' "$T" | uuencode -m x`,
		"hex":                      withTok + `printf '%s' "$T" | xxd -p`,
		"upper case hex":           withTok + `printf '%s' "$T" | xxd -p | tr a-f A-F`,
		"xxd":                      withTok + `printf '%s' "$T" | xxd`,
		"od":                       withTok + `printf '%s' "$T" | od -An -tx1`,
		"hexdump -C":               withTok + `printf '%s' "$T" | hexdump -C`,
		"hex with colons":          withTok + `printf '%s' "$T" | xxd -p | sed 's/../&:/g'`,
		"percent":                  withTok + `echo "$T" | sed 's,/,%2F,g;s/+/%2B/g;s/=/%3D/g;s/"/%22/g;s/</%3C/g;s/é/%C3%A9/g'"; s/'/%27/g"`,
		"small percent":            withTok + `echo "$T" | sed 's,/,%2f,g;s/+/%2b/g;s/=/%3d/g;s/"/%22/g;s/</%3c/g;s/é/%c3%a9/g'"; s/'/%27/g"`,
		"JSON":                     withTok + `echo "{\"token\": \"$(echo "$T" | sed 's/"/\\"/g')\"}"`,
		"split in two":             withTok + `printf 'tok3n-Of/t'; sleep 1; echo "$T" | cut -c 11-`,
		"byte by byte":             withTok + `echo "$T" | while IFS= read -r -n 1 c; do printf '%s' "$c"; done`,
		"split by time":            withTok + `echo "$T" | fold -b -w 5 | while IFS= read -r c; do printf '%s' "$c"; sleep 0.1; done`,
		"a thousand times":         withTok + `for i in $(seq 1000); do echo "$i $T"; done`,
		"behind a long line":       withTok + `head -c 70000 /dev/zero | tr '\0' x; echo "$T"`,
		"awk":                      "RUN --mount=type=secret,id=tok awk '{print \"<\" $0 \">\"}' /run/secrets/tok",
		"grep":                     "RUN --mount=type=secret,id=tok grep -n . /run/secrets/tok",
		"diff":                     "RUN --mount=type=secret,id=tok diff /run/secrets/tok /dev/null || true",
		"name of a missing file":   withTok + `ls "/nothing/$T" || true`,
		"a program that is none":   withTok + `"$T" || true`,
		"an invalid date":          withTok + `date -d "$T" || true`,
		"a file name in an error":  withTok + `cat < "$T" || true`,
		"an invalid number":        withTok + `sleep "$T" || true`,
		"carriage return":          withTok + `printf 'wait\r%s\r' "$T"`,
		"terminal colours":         withTok + `printf '\033[1m%s\033[0m' "$T"`,
		"a key":                    withKey + `cat /key`,
		"a key by line":            withKey + `head -n 3 /key | tail -n 1`,
		"a key in one line":        withKey + `echo $(cat /key)`,
		"a key with line ends":     withKey + `unix2dos < /key`,
		"a key in JSON":            withKey + `awk '{printf "%s\\n", $0}' /key`,
		"a key in base64":          withKey + `base64 -w 0 /key`,
		"a key in lines of base64": withKey + `base64 /key`,
		"a key in hex":             withKey + `xxd -p /key`,
		"a key, indented":          withKey + `sed 's/^/    /' /key`,
		"a key, numbered":          withKey + `cat -n /key`,
	} {
		t.Run(name, func(t *testing.T) {
			got := w.run(t, leakBuild{dockerfile: leakBase + step + "\n", attrs: map[string]string{"no-cache": ""}})
			if got.err != nil {
				t.Fatal(got.err)
			}
			if found := tracesIn(got.all); len(found) > 0 {
				t.Errorf("the client is told %q:\n%s", found, got.logs)
			}
			if !strings.Contains(got.logs, "***") {
				t.Errorf("nothing is masked in:\n%s", got.logs)
			}
		})
	}
	t.Run("a short value", func(t *testing.T) {
		for range 2 {
			got := w.run(t, leakBuild{dockerfile: leakBase + "RUN --mount=type=secret,id=pin cat /run/secrets/pin | tee /pin\n", attrs: map[string]string{"no-cache": ""}})
			if got.err != nil || strings.Contains(got.logs, thePin) || strings.Count(got.warn, `secret "pin" has 5 bytes`) != 1 {
				t.Errorf("%v\nlogs %s\nwarnings %s", got.err, got.logs, got.warn)
			}
		}
	})
	w.checkKept(t)
}

// checkKept looks for secrets in what the daemon keeps of builds: journals, records, traces and its own log.
func (w leakWorld) checkKept(t *testing.T) {
	t.Helper()
	looked := 0
	for _, dir := range []string{filepath.Join(w.root, "history"), filepath.Join(w.dir, "log")} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if found := tracesIn(b); len(found) > 0 {
				t.Errorf("the daemon keeps %q in %s: …%s…", found, path, around(b, found))
			}
			looked++
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if looked < 3 {
		t.Errorf("the daemon keeps %d files", looked)
	}
}

// leak is a way out of a build other than its logs.
type leak struct {
	// step is the end of a Dockerfile, of which the line that holds at is to be named.
	step, at string
	// where is said in the error.
	where string
	files map[string]string
	attrs map[string]string
	id    string // "tok" if empty
}

func leaks() map[string]leak {
	file := func(step, where string) leak { return leak{step: step, where: where} }
	tok := func(script, where string) leak { return file(withTok+script, where) }
	key := func(script, where string) leak { return leak{step: withKey + script, where: where, id: "key"} }
	arg := map[string]string{"build-arg:LEAK": theSecret}
	return map[string]leak{
		"a file":               tok(`echo "$T" > /leak`, "content of /leak"),
		"a copied file":        file("RUN --mount=type=secret,id=tok cp /run/secrets/tok /leak", "/leak"),
		"a moved copy":         file("RUN --mount=type=secret,id=tok cp /run/secrets/tok /a && mv /a /b", "/b"),
		"a file of a script":   file("RUN --mount=type=secret,id=tok <<EOF\ncat /run/secrets/tok > /leak\nEOF", "/leak"),
		"dd":                   file("RUN --mount=type=secret,id=tok dd if=/run/secrets/tok of=/leak bs=3", "/leak"),
		"a hidden file":        tok(`mkdir -p /root/.x && echo "$T" > /root/.x/.leak`, "/root/.x/.leak"),
		"an unreadable file":   tok(`echo "$T" > /leak && chmod 0 /leak`, "/leak"),
		"a foreign file":       tok(`echo "$T" > /leak && chown 4711:4711 /leak`, "/leak"),
		"a long file":          tok(`(head -c 5000000 /dev/zero; echo "$T"; head -c 5000000 /dev/zero) > /leak`, "/leak"),
		"the end of a file":    tok(`(head -c 262140 /dev/zero; printf %s "$T") > /leak`, "/leak"),
		"a sparse file":        tok(`echo "$T" | dd of=/leak bs=1 seek=50000000`, "/leak"),
		"among many":           tok(`mkdir /d; for i in $(seq 500); do echo $i > /d/$i; done; echo "$T" >> /d/321`, "/d/321"),
		"appended":             tok(`echo a > /leak; printf 'b %s c' "$T" >> /leak`, "/leak"),
		"split writes":         tok(`printf 'tok3n-Of/' > /leak; sleep 0.2; echo "$T" | cut -c 10- >> /leak`, "/leak"),
		"binary":               tok(`printf '\001\002%s\000\377' "$T" > /leak`, "/leak"),
		"a hard link":          tok(`echo "$T" > /a && ln /a /leak`, "/a"),
		"tmp":                  tok(`echo "$T" > /tmp-leak && mkdir -p /tmp && cp /tmp-leak /tmp/x`, "/tmp"),
		"over a lower file":    tok(`cp /bin/busybox /x && echo "$T" >> /x && mv /x /bin/busybox`, "/bin/busybox"),
		"the name of a file":   tok(`touch "/a-$(echo "$T" | xxd -p -c 99)"`, "name of"),
		"the name of a dir":    tok(`mkdir "/$(echo "$T" | xxd -p -c 99)"`, "name of"),
		"the target of a link": tok(`ln -s "$T" /link`, "target of the link /link"),
		"netrc":                tok(`mkdir -p /root; printf 'machine example.com login me password %s\n' "$T" > /root/.netrc`, "/root/.netrc"),
		"npmrc":                tok(`mkdir -p /root; echo "//registry.npmjs.org/:_authToken=$T" > /root/.npmrc`, "/root/.npmrc"),
		"yarnrc":               tok(`mkdir -p /root; printf 'npmAuthToken: "%s"\n' "$T" > /root/.yarnrc.yml`, "/root/.yarnrc.yml"),
		"pip.conf":             tok(`mkdir -p /etc; printf '[global]\nindex-url = https://u:%s@pypi.example.com/simple\n' "$T" > /etc/pip.conf`, "/etc/pip.conf"),
		"pypirc":               tok(`mkdir -p /root; printf '[pypi]\nusername=__token__\npassword=%s\n' "$T" > /root/.pypirc`, "/root/.pypirc"),
		"git config":           tok(`mkdir -p /root; printf '[http]\n\textraHeader = Authorization: Bearer %s\n' "$T" > /root/.gitconfig`, "/root/.gitconfig"),
		"git remote":           tok(`mkdir -p /src/.git; printf '[remote "origin"]\n\turl = https://oauth2:%s@github.com/x/y\n' "$T" > /src/.git/config`, "/src/.git/config"),
		"git credentials":      tok(`mkdir -p /root; echo "https://me:$T@github.com" > /root/.git-credentials`, "/root/.git-credentials"),
		"git basic header":     tok(`mkdir -p /root; printf 'AUTHORIZATION: basic %s' "$(printf 'x-access-token:%s' "$T" | base64 -w 0)" > /root/.gitconfig`, "/root/.gitconfig"),
		"docker config":        tok(`mkdir -p /root/.docker; printf '{"auths":{"r":{"auth":"%s"}}}' "$(printf 'me:%s' "$T" | base64 -w 0)" > /root/.docker/config.json`, "/root/.docker/config.json"),
		"kubeconfig":           tok(`mkdir -p /root/.kube; printf 'users:\n- name: me\n  user:\n    token: %s\n' "$T" > /root/.kube/config`, "/root/.kube/config"),
		"kubernetes secret":    tok(`printf 'data:\n  token: %s\n' "$(printf %s "$T" | base64 -w 0)" > /secret.yaml`, "/secret.yaml"),
		"dot env":              tok(`mkdir -p /app; echo "API_TOKEN=$T" > /app/.env`, "/app/.env"),
		"profile":              tok(`mkdir -p /etc/profile.d; echo "export TOKEN='$T'" > /etc/profile.d/t.sh`, "/etc/profile.d/t.sh"),
		"shell history":        tok(`mkdir -p /root; echo "curl -H 'Authorization: $T' example.com" > /root/.ash_history`, "/root/.ash_history"),
		"crontab":              tok(`mkdir -p /etc/crontabs; echo "* * * * * wget http://example.com/$T" > /etc/crontabs/root`, "/etc/crontabs/root"),
		"a log file":           tok(`mkdir -p /var/log; sh -x -c ': "$1"' x "$T" 2> /var/log/build.log`, "/var/log/build.log"),
		"settings.xml":         tok(`printf '<password>%s</password>' "$(echo "$T" | sed "s/&/\&amp;/g;s/</\&lt;/g;s/\"/\&#34;/g;s/'/\&#39;/g")" > /settings.xml`, "/settings.xml"),
		"JSON":                 tok(`echo "{\"token\": \"$(echo "$T" | sed 's/"/\\"/g')\"}" > /t.json`, "/t.json"),
		"base64":               tok(`printf %s "$T" | base64 > /leak`, "/leak"),
		"base64 for URLs":      tok(`printf %s "$T" | base64 | tr +/ -_ > /leak`, "/leak"),
		"base64 one byte on":   tok(`printf 'a%s' "$T" | base64 > /leak`, "/leak"),
		"base64 two bytes on":  tok(`printf 'ab%s' "$T" | base64 > /leak`, "/leak"),
		"hex":                  tok(`printf %s "$T" | xxd -p > /leak`, "/leak"),
		"upper case hex":       tok(`printf %s "$T" | xxd -p | tr a-f A-F > /leak`, "/leak"),
		"od":                   tok(`printf %s "$T" | od -An -tx1 > /leak`, "/leak"),
		"hexdump":              tok(`printf %s "$T" | hexdump -C > /leak`, "/leak"),
		"percent":              tok(`echo "$T" | sed 's,/,%2F,g;s/+/%2B/g;s/=/%3D/g;s/"/%22/g;s/</%3C/g;s/é/%C3%A9/g'"; s/'/%27/g" > /leak`, "/leak"),
		"the environment":      file(withEnv+`env > /leak`, "/leak"),
		"a core file":          file(withEnv+`cat /proc/self/environ > /core.1`, "/core.1"),
		"the command line":     tok(`sh -c 'cat /proc/$$/cmdline > /leak; true' x "$T"`, "/leak"),
		"tar":                  tok(`mkdir /d && echo "$T" > /d/f && tar cf /a.tar d && rm -r /d`, "/a.tar"),
		"gzip":                 tok(`echo "$T" | gzip > /a.gz`, "/a.gz"),
		"tar and gzip":         tok(`mkdir /d && echo "$T" > /d/f && tar czf /a.tgz d && rm -r /d`, "/a.tgz"),
		"cpio":                 tok(`mkdir /d && cd /d && echo "$T" > f && (echo f | cpio -o -H newc > /a.cpio) && rm -r /d`, "/a.cpio"),
		"ar":                   tok(`cd / && echo "$T" > f && ar -r a.a f 2>/dev/null; cat f >> a.a; rm f`, "/a.a"),
		"a key":                key(`mkdir -p /root/.ssh; cp /key /root/.ssh/id_ed25519`, "/root/.ssh/id_ed25519"),
		"a line of a key":      key(`sed -n 3p /key > /leak`, "/leak"),
		"a key in one line":    key(`echo $(cat /key) > /leak`, "/leak"),
		"a key with line ends": key(`unix2dos < /key > /leak`, "/leak"),
		"a key in base64":      key(`base64 /key > /leak`, "/leak"),
		"a key in JSON":        key(`awk '{printf "%s\\n", $0}' /key > /leak`, "/leak"),
		"a key, indented":      key(`sed 's/^/  /' /key > /leak`, "/leak"),
		"a stage that is not exported": {
			step: "AS leaky\n" + withTok + "echo \"$T\" > /leak\nFROM base\nCOPY --from=leaky /leak /other\n", at: "> /leak", where: "/leak",
		},
		"COPY of a context": {step: used + "COPY f /etc/f\n", at: "COPY f", where: "/etc/f", files: map[string]string{"f": "x=" + theSecret}},
		"COPY before its use": {
			step: "COPY f /etc/f\n" + used, at: "COPY f", where: "/etc/f", files: map[string]string{"f": "x=" + theSecret},
		},
		"ADD of a context":    {step: used + "ADD f /etc/f\n", at: "ADD f", where: "/etc/f", files: map[string]string{"f": "x=" + theSecret}},
		"COPY of a directory": {step: used + "COPY d /d\n", at: "COPY d", where: "/d/e/f", files: map[string]string{"d/e/f": "x=" + theSecret, "d/a": "a"}},
		"ADD of an archive": {
			step: used + "ADD a.tar /d\n", at: "ADD a.tar", where: "/d/f", files: map[string]string{"a.tar": tarText("f", theSecret, nil)},
		},
		"an extended attribute": {
			step: used + "ADD a.tar /d\n", at: "ADD a.tar", where: "extended attribute of /d/f",
			files: map[string]string{"a.tar": tarText("f", "harmless", map[string]string{"user.token": theSecret})},
		},
		"COPY of a heredoc": {step: used + "COPY <<EOF /etc/f\ntoken=" + theSecret + "\nEOF\n", at: "COPY <<EOF", where: "/EOF"},
		"COPY of an argument": {
			step: used + "ARG LEAK\nCOPY <<EOF /etc/f\ntoken=$LEAK\nEOF\n", at: "COPY <<EOF", where: "/EOF", attrs: arg,
		},
		"RUN with an argument":   {step: used + "ARG LEAK\nRUN echo $LEAK > /leak\n", at: "RUN echo", where: "/leak", attrs: arg},
		"RUN before its use":     {step: "ARG LEAK\nRUN echo \"$LEAK\" > /leak\n" + used, at: "RUN echo", where: "/leak", attrs: arg},
		"a cache mount":          file("RUN --mount=type=cache,target=/c --mount=type=secret,id=tok cp /run/secrets/tok /c/x\nRUN --mount=type=cache,target=/c cp /c/x /leak", "/leak"),
		"a writable bind":        file("RUN --mount=type=bind,target=/b,rw --mount=type=secret,id=tok cp /run/secrets/tok /b/x && cp /b/x /leak", "/leak"),
		"a bind of the context":  {step: used + "RUN --mount=type=bind,target=/b cp /b/f /leak\n", at: "cp /b/f", where: "/leak", files: map[string]string{"f": theSecret}},
		"ENV":                    {step: used + "ENV LEAK=" + quoted(theSecret) + "\n", at: "ENV LEAK", where: "LEAK"},
		"ENV of an argument":     {step: used + "ARG LEAK\nENV TOKEN=$LEAK\n", where: "TOKEN", attrs: arg, at: "ENV TOKEN"},
		"LABEL":                  {step: used + "LABEL leak=" + quoted(theSecret) + "\n", at: "LABEL", where: "Labels.leak"},
		"LABEL of an argument":   {step: used + "ARG LEAK\nLABEL my.label=$LEAK\n", at: "LABEL", where: "Labels.my.label", attrs: arg},
		"--label":                {step: used, where: "Labels.leak", attrs: map[string]string{"label:leak": theSecret}},
		"CMD":                    {step: used + "CMD [\"wget\", \"http://example.com/" + escaped(theSecret) + "\"]\n", where: "Cmd"},
		"ENTRYPOINT":             {step: used + "ENTRYPOINT [\"" + escaped(theSecret) + "\"]\n", where: "Entrypoint"},
		"HEALTHCHECK":            {step: used + "HEALTHCHECK CMD [\"" + escaped(theSecret) + "\"]\n", where: "Healthcheck"},
		"ONBUILD":                {step: used + "ONBUILD RUN echo " + theSecret + "\n", where: "OnBuild"},
		"USER":                   {step: used + "USER " + strings.ReplaceAll(url.QueryEscape(theSecret), "%", "%") + "\n", where: "User"},
		"SHELL":                  {step: used + "SHELL [\"/bin/sh\", \"-c\", \"" + escaped(theSecret) + "\"]\n", where: "Shell"},
		"WORKDIR":                {step: used + "ARG LEAK\nWORKDIR /w/$LEAK\n", at: "WORKDIR", where: "/w", attrs: map[string]string{"build-arg:LEAK": url.QueryEscape(theSecret)}},
		"history of an argument": {step: used + "ARG LEAK\nRUN true\n", at: "ARG LEAK", where: "LEAK", attrs: arg},
		"base64 in ENV":          {step: used + "ENV LEAK=" + base64.StdEncoding.EncodeToString([]byte("me:"+theSecret)) + "\n", at: "ENV LEAK", where: "LEAK"},
		"provenance": {
			step: used, where: "attestation", attrs: map[string]string{"build-arg:UNUSED": theSecret, "attest:provenance": "mode=max"},
		},
		"a comment in provenance": {
			step: "# " + theSecret + "\n" + used, where: "attestation", attrs: map[string]string{"attest:provenance": "mode=max"},
		},
	}
}

// TestSecretsDoNotLeave tries to carry secrets out in files, names, the image's config and more.
func TestSecretsDoNotLeave(t *testing.T) {
	w := newLeakWorld(t)
	for name, l := range leaks() {
		t.Run(name, func(t *testing.T) {
			text := base + "FROM base "
			if !strings.HasPrefix(l.step, "AS ") {
				text += "\n"
			}
			text += l.step + "\n"
			var archive bytes.Buffer
			got := w.run(t, leakBuild{dockerfile: text, files: l.files, attrs: l.attrs, exports: image(&archive)})
			if found := tracesIn(archive.Bytes()); len(found) > 0 {
				t.Errorf("the image holds %q", found)
			}
			if got.err == nil {
				t.Fatalf("the build is well; it printed:\n%s", got.logs)
			}
			if found := tracesIn(got.all); len(found) > 0 {
				t.Errorf("the client is told %q: …%s…", found, around(got.all, found))
			}
			id := l.id
			if id == "" {
				id = "tok"
			}
			if msg := got.err.Error(); !strings.Contains(msg, fmt.Sprintf("secret %q", id)) || !strings.Contains(msg, l.where) || !strings.Contains(msg, "--allow-secret-leak="+id) {
				t.Errorf("the error is: %s", msg)
			}
			at := l.at
			if at == "" && strings.HasPrefix(l.step, "RUN") && !strings.HasPrefix(l.step, used) {
				at = "RUN"
			}
			if at != "" {
				checkSource(t, got.err, text, at)
			}
		})
	}
	w.checkKept(t)
}

// checkSource sees that an error names the line of the source that holds a text.
func checkSource(t *testing.T, err error, text, at string) {
	t.Helper()
	lines := strings.Split(text, "\n")
	var named []string
	for _, s := range errdefs.Sources(err) {
		for _, r := range s.Ranges {
			for n := r.Start.Line; n <= max(r.End.Line, r.Start.Line); n++ {
				named = append(named, lines[n-1])
			}
		}
	}
	if !strings.Contains(strings.Join(named, "\n"), at) {
		t.Errorf("the error names the lines %q, not that with %q", named, at)
	}
}
