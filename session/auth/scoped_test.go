package auth

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/docker/cli/cli/config/configfile"
)

func TestScopedConfigurations(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	for _, name := range []string{"r.io", "r.io@push", "r.io/team/app", "r.io/team/app@push", "r.io/team/app@pull,push", "other.io/team/app", "docker.io/me/x"} {
		dir := filepath.Join(base, filepath.FromSlash(name))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		// The user is named like the directory.
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"r.io":{"username":"`+name+`","password":"p"},"https://index.docker.io/v1/":{"username":"`+name+`","password":"p"}}}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "config.json"), []byte("not one of them"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := newAccounts(func() (*configfile.ConfigFile, error) { return configfile.New(""), nil }, base, 0)
	for _, tc := range []struct {
		host   string
		scopes []string
		want   string
	}{
		{"r.io", nil, ""},
		{"r.io", []string{"repository:team/app:pull"}, "r.io/team/app"},
		{"r.io", []string{"repository:team/app:push"}, "r.io/team/app@push"},
		{"r.io", []string{"repository:team/app:pull,push"}, "r.io/team/app@pull,push"},
		{"r.io", []string{"repository:team/app:pull repository:team/app:push"}, "r.io/team/app@pull,push"},
		{"r.io", []string{"repository:team/app2:pull"}, "r.io"},
		{"r.io", []string{"repository:team:pull,push"}, "r.io@push"},
		{"r.io", []string{"repository:team/app:pull", "repository:team/base:pull"}, ""},
		{"r.io", []string{"nonsense"}, ""},
		{"third.io", []string{"repository:team/app:pull"}, ""},
		{"registry-1.docker.io", []string{"repository:me/x:pull"}, "docker.io/me/x"},
		{"registry-1.docker.io", []string{"repository:me/y:pull"}, ""},
		{"dhi.io", []string{"repository:me/x:pull"}, "docker.io/me/x"},
	} {
		if got, err := a.lookup(t.Context(), tc.host, tc.scopes...); err != nil || got.username != tc.want {
			t.Errorf("%s %q: %q, %v; want %q", tc.host, tc.scopes, got.username, err, tc.want)
		}
	}
	if !a.hasScoped("r.io") || !a.hasScoped("index.docker.io") || a.hasScoped("third.io") {
		t.Error("which hosts have scoped configurations is wrong")
	}
}
