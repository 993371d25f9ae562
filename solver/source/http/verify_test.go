package http

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

func TestSignatures(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	s := newServer(t, "signed", nil)
	e, err := openpgp.NewEntity("a", "", "a@b", nil)
	if err != nil {
		t.Fatal(err)
	}
	var key, sig bytes.Buffer
	w, err := armor.Encode(&key, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openpgp.ArmoredDetachSign(&sig, e, strings.NewReader("signed"), nil); err != nil {
		t.Fatal(err)
	}
	attrs := map[string]string{"http.sig.pubkey": key.String(), "http.sig.signature": sig.String()}
	if g, err := f.get(f.nobody(), s.URL+"/f", attrs); err != nil || g.body != "signed" {
		t.Errorf("signed: %q, %v", g.body, err)
	}
	s.mu.Lock()
	s.body = "forged"
	s.mu.Unlock()
	if _, err := f.get(f.nobody(), s.URL+"/f", attrs); err == nil || !strings.Contains(err.Error(), "verify signature") {
		t.Errorf("forged: %v", err)
	}
}
