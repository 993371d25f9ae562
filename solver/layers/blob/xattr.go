package blob

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// overlayfs obeys attributes of these names: they come into a blob only as marks that we set ourselves.
const (
	trustedOverlay = "trusted.overlay."
	userOverlay    = "user.overlay."
	opaqueSuffix   = "opaque"
)

// xattr is an extended attribute as EROFS stores it.
type xattr struct {
	index  byte   // of the prefix
	suffix string // of the name
	value  string
}

// prefixes are the name prefixes EROFS knows, by index. A name of another kind cannot be shown by the kernel: it stays in the
// tar alone.
var prefixes = [...]struct {
	index  byte
	prefix string
	whole  bool
}{
	{2, "system.posix_acl_access", true},
	{3, "system.posix_acl_default", true},
	{1, "user.", false},
	{4, "trusted.", false},
	{6, "security.", false},
}

func isOverlayXattr(name string) bool {
	return strings.HasPrefix(name, trustedOverlay) || strings.HasPrefix(name, userOverlay)
}

func splitXattr(name string) (xattr, bool) {
	for _, p := range prefixes {
		if s, ok := strings.CutPrefix(name, p.prefix); ok && p.whole == (s == "") {
			return xattr{index: p.index, suffix: s}, true
		}
	}
	return xattr{}, false
}

func joinXattr(index byte, suffix string) (string, bool) {
	for _, p := range prefixes {
		if p.index == index && p.whole == (suffix == "") {
			return p.prefix + suffix, true
		}
	}
	return "", false
}

// xattrs makes of named attributes what is stored of them. entry is for the error.
func xattrs(named map[string]string, limit int, entry string) ([]xattr, error) {
	var (
		xs    []xattr
		total int
	)
	for name, value := range named {
		if isOverlayXattr(name) {
			continue
		}
		total += len(name) + len(value)
		switch {
		case len(name) > maxXattrName || strings.IndexByte(name, 0) >= 0:
			return nil, entryError(entry, ErrLimit, "extended attribute with a name of %d bytes", len(name))
		case len(value) > maxXattrValue:
			return nil, entryError(entry, ErrLimit, "extended attribute %q of %d bytes", name, len(value))
		case total > limit:
			return nil, entryError(entry, ErrLimit, "more than %d bytes of extended attributes", limit)
		}
		if x, ok := splitXattr(name); ok {
			x.value = value
			xs = append(xs, x)
		}
	}
	slices.SortFunc(xs, func(a, b xattr) int {
		return cmp.Or(cmp.Compare(a.index, b.index), strings.Compare(a.suffix, b.suffix))
	})
	return xs, nil
}

// opaqueMark is what overlayfs knows an opaque directory by. There is none for overlays mounted with userxattr: in all others
// it would be an attribute like any other, be copied up by whatever touches the directory, and hide things where nobody meant
// it to.
func opaqueMark() xattr { return xattr{index: 4, suffix: "overlay." + opaqueSuffix, value: "y"} }

const (
	xattrHeader = 12
	xattrEntry  = 4
)

// xattrSize is the room xs take behind an inode.
func xattrSize(xs []xattr) int {
	if len(xs) == 0 {
		return 0
	}
	n := xattrHeader
	for _, x := range xs {
		n += align(xattrEntry+len(x.suffix)+len(x.value), 4)
	}
	return n
}

// putXattrs writes xs to b, which has just the room.
func putXattrs(b []byte, xs []xattr) {
	b = b[xattrHeader:]
	for _, x := range xs {
		b[0] = byte(len(x.suffix))
		b[1] = x.index
		binary.LittleEndian.PutUint16(b[2:], uint16(len(x.value)))
		n := xattrEntry + copy(b[xattrEntry:], x.suffix)
		n += copy(b[n:], x.value)
		b = b[align(n, 4):]
	}
}

// getXattrs reads what putXattrs wrote.
func getXattrs(b []byte) (map[string]string, bool, error) {
	if len(b) == 0 {
		return nil, false, nil
	}
	if len(b) < xattrHeader || b[4] != 0 {
		return nil, false, damaged("extended attributes")
	}
	var (
		opaque bool
		named  map[string]string
	)
	for b = b[xattrHeader:]; len(b) > 0; {
		if len(b) < xattrEntry {
			return nil, false, damaged("extended attributes")
		}
		nameLen, valueLen := int(b[0]), int(binary.LittleEndian.Uint16(b[2:]))
		n := xattrEntry + nameLen + valueLen
		if align(n, 4) > len(b) {
			return nil, false, damaged("extended attributes")
		}
		name, ok := joinXattr(b[1], string(b[xattrEntry:xattrEntry+nameLen]))
		if !ok {
			return nil, false, damaged("extended attribute of kind %d", b[1])
		}
		value := string(b[xattrEntry+nameLen : n])
		if isOverlayXattr(name) {
			opaque = true
		} else {
			if named == nil {
				named = map[string]string{}
			}
			named[name] = value
		}
		b = b[align(n, 4):]
	}
	return named, opaque, nil
}

// align rounds n up to a multiple of to, a power of two.
func align[T int | int64](n, to T) T { return (n + to - 1) &^ (to - 1) }
