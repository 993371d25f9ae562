package e2e

import (
	"archive/tar"
	"bytes"
	"strings"
)

// tarText is an archive of one file.
func tarText(name, text string, xattrs map[string]string) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), PAXRecords: map[string]string{}}
	for k, v := range xattrs {
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	if err := w.WriteHeader(h); err != nil {
		panic(err) // memory only
	}
	if _, err := w.Write([]byte(text)); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

// quoted is a text as a value in a Dockerfile.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
}

// escaped is a text as a part of a JSON string.
func escaped(s string) string { return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) }
