package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/slipwaybuild/slipway/solver/source/registry/registrytest"
)

// rawBuild is a POST /build as a program would send it that knows nothing of sessions. It returns the status, the image's id and
// the error at the end of the story.
func (d *daemon) rawBuild(query url.Values, body []byte, header http.Header) (code int, id, failure string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, "http://docker/v1.41/build?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := unixClient(d.socket).Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		return res.StatusCode, "", string(text)
	}
	for line := range bytes.Lines(text) {
		var m struct {
			ID, Error string
			Aux       json.RawMessage
		}
		if err := json.Unmarshal(line, &m); err != nil || !bytes.HasSuffix(line, []byte("\r\n")) {
			d.t.Fatalf("%q: %v", line, err)
		}
		failure = m.Error
		if m.ID == "moby.image.id" {
			var aux struct{ ID string }
			_ = json.Unmarshal(m.Aux, &aux)
			id = aux.ID
		}
	}
	return res.StatusCode, id, failure
}

// Contexts are known by their bytes, whatever the request says of them.
func TestRawBuildCompressions(t *testing.T) {
	d := startDaemon(t)
	file := regular("f", "x")
	dockerfile := regular("Dockerfile", "FROM scratch\nCOPY f /\n")
	plain := tarball(t, dockerfile, file)
	// A tar as Python and others make it: its first entry has attributes that do not fit in a plain header.
	dockerfile.Format, dockerfile.ModTime = tar.FormatPAX, time.Unix(1, 5e8)
	contexts := map[string][]byte{"plain": plain, "pax": tarball(t, dockerfile, file), "Dockerfile": []byte("FROM scratch\nLABEL only=this\n")}
	for _, program := range []string{"gzip", "bzip2", "xz", "zstd"} {
		need(t, program)
		cmd := exec.Command(program, "-c")
		cmd.Stdin = bytes.NewReader(plain)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		contexts[program] = out
	}
	ids := map[string]string{}
	for name, body := range contexts {
		code, id, failure := d.rawBuild(url.Values{"version": {"2"}}, body, http.Header{"Content-Type": {"text/nonsense"}})
		if code != http.StatusOK || id == "" || failure != "" {
			t.Errorf("%s: %d %q %q", name, code, id, failure)
		}
		ids[name] = id
	}
	for _, name := range []string{"gzip", "bzip2", "xz", "zstd"} {
		if ids[name] != ids["plain"] {
			t.Errorf("%s makes another image than the plain tar", name)
		}
	}
	if code, _, failure := d.rawBuild(url.Values{"version": {"2"}}, plain[:700], nil); code == http.StatusOK && failure == "" {
		t.Error("half a tar is a context")
	}
}

func TestRawBuildAccounts(t *testing.T) {
	for _, kind := range []registrytest.Auth{registrytest.Basic, registrytest.Bearer} {
		t.Run(string(kind), func(t *testing.T) {
			d := startDaemon(t)
			r := registrytest.New(t, registrytest.Options{Auth: kind, Accounts: map[string]string{"jane": "s3cret-password"}})
			pushImage(t, r.Host+"/private:1", imageOf(t, layerOf(t, tarOf(t, tarReg("f", "private")))), &authn.Basic{Username: "jane", Password: "s3cret-password"})
			body := tarball(t, regular("Dockerfile", "FROM "+r.Host+"/private:1\nCOPY Dockerfile /\n"))
			header := func(password string) http.Header {
				config := fmt.Sprintf(`{%q:{"username":"jane","password":%q,"serveraddress":%[1]q}}`, r.Host, password)
				return http.Header{"X-Registry-Config": {base64.URLEncoding.EncodeToString([]byte(config))}}
			}
			for name, h := range map[string]http.Header{"no account": nil, "null": {"X-Registry-Config": {"bnVsbA=="}}, "wrong password": header("wrong")} {
				if _, id, failure := d.rawBuild(url.Values{"version": {"2"}}, body, h); id != "" || !strings.Contains(failure, "denies access") {
					t.Errorf("%s: %q %q", name, id, failure)
				}
			}
			if code, id, failure := d.rawBuild(url.Values{"version": {"2"}}, body, header("s3cret-password")); code != http.StatusOK || id == "" || failure != "" {
				t.Errorf("%d %q %q", code, id, failure)
			}
			if strings.Contains(d.logText(), "s3cret") {
				t.Error("the password is in the log")
			}
		})
	}
}

func TestRawBuildOutputsAndRefusals(t *testing.T) {
	d := startDaemon(t)
	body := []byte("FROM scratch\nLABEL a=b\n")
	two := url.Values{"version": {"2"}, "t": {"first"}, "outputs": {`[{"Type":"moby"},{"Type":"image","Attrs":{"name":"second"}}]`}}
	if code, id, failure := d.rawBuild(two, body, nil); code != http.StatusOK || id == "" || failure != "" {
		t.Fatalf("%d %q %q", code, id, failure)
	}
	for _, name := range []string{"first", "second"} {
		if _, id, failure := d.rawBuild(url.Values{"version": {"2"}}, []byte("FROM "+name+"\n"), nil); id == "" {
			t.Errorf("%s is not there: %s", name, failure)
		}
	}
	for query, want := range map[string]int{
		"version=2&outputs=%5B%7B%22Type%22%3A%22bogus%22%7D%5D": 400, "version=x": 400, "version=2&networkmode=host": 400, "version=2&memory=x": 400,
	} {
		q, _ := url.ParseQuery(query)
		if code, _, failure := d.rawBuild(q, body, nil); code != want || !strings.HasPrefix(failure, `{"message":"`) {
			t.Errorf("%s: %d %q", query, code, failure)
		}
	}
}
