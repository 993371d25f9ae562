package git

import (
	"bytes"
	"crypto"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// signer is a key pair, and its public half as people paste it.
type signer struct {
	t      *testing.T
	entity *openpgp.Entity
	public string
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	e, err := openpgp.NewEntity("a", "", "a@b", &packet.Config{DefaultHash: crypto.SHA256, RSABits: 2048})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &signer{t, e, b.String()}
}

func (s *signer) sign(text string) string {
	s.t.Helper()
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, s.entity, strings.NewReader(text), nil); err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

// object writes a raw object and returns its name.
func (r *repo) object(kind, raw string) string {
	r.t.Helper()
	p := filepath.Join(r.t.TempDir(), "object")
	if err := os.WriteFile(p, []byte(raw), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return r.git("hash-object", "-t", kind, "-w", p)
}

// signed makes a commit like HEAD that is signed, and returns its name.
func (r *repo) signed(s *signer) string {
	r.t.Helper()
	raw := r.git("cat-file", "commit", "HEAD") + "\n"
	head, message, _ := strings.Cut(raw, "\n\n")
	sig := strings.ReplaceAll(strings.TrimSpace(s.sign(raw)), "\n", "\n ")
	return r.object("commit", head+"\ngpgsig "+sig+"\n\n"+message)
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := t.TempDir()
	r := newRepo(t, filepath.Join(dir, "r"))
	good, other := newSigner(t), newSigner(t)
	plain := r.commit(map[string]string{"f": "1"})
	r.git("branch", "plain", plain)
	r.git("branch", "signed", r.signed(good))
	tag := "object " + plain + "\ntype commit\ntag t\ntagger a <a@b> 1600000000 +0000\n\nmessage\n"
	r.git("update-ref", "refs/tags/signed-tag", r.object("tag", tag+good.sign(tag)))
	s := serve(t, dir, "")
	for _, c := range []struct {
		ref   string
		by    *signer
		attrs map[string]string
		want  string
	}{
		{"signed", good, nil, ""},
		{"signed", other, nil, "verify signature"},
		{"plain", good, nil, "verify signature"},
		{"signed", good, map[string]string{"git.sig.requiresignedtag": "true"}, "signed tag required"},
		{"signed-tag", good, nil, ""},
		{"signed-tag", good, map[string]string{"git.sig.requiresignedtag": "true"}, ""},
		{"signed-tag", other, nil, "verify signature"},
		{"signed-tag", good, map[string]string{"git.sig.ignoresignedtag": "true"}, "verify signature"},
	} {
		attrs := map[string]string{"git.sig.pubkey": c.by.public}
		for k, v := range c.attrs {
			attrs[k] = v
		}
		files, _, err := f.get(f.nobody(), s.URL+"/r/.git#"+c.ref, attrs)
		switch {
		case c.want == "" && (err != nil || files["f"] != "1"):
			t.Errorf("%s %v: %v, %v", c.ref, c.attrs, files, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s %v: %v, want %q", c.ref, c.attrs, err, c.want)
		}
	}
}
