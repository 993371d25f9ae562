package blob

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// The canonical tar. Layers are named by the digest of their tar, so its bytes must not depend on the host, nor on the version
// of a library: these few lines decide them. A header is USTAR as POSIX has it, without user names. A PAX header stands before
// it only if something does not fit, and holds only that, sorted by key. Numbers are never in base 256.

const (
	tarName   = 100
	tarPrefix = 155

	maxOctal7  = 1<<21 - 1
	maxOctal11 = 1<<33 - 1
)

// tarHeader is what the header of an entry says.
type tarHeader struct {
	name         string // with a slash at the end for a directory
	flag         byte
	mode         uint32
	uid, gid     uint32
	size         int64
	sec          int64
	nsec         uint32
	linkname     string
	major, minor uint32
	xattrs       map[string]string
}

// tarFlags are the types of the entries that have one of their own.
var tarFlags = map[uint32]byte{
	fstree.ModeRegular: '0',
	fstree.ModeSymlink: '2',
	fstree.ModeChar:    '3',
	fstree.ModeBlock:   '4',
	fstree.ModeDir:     '5',
	fstree.ModeFifo:    '6',
}

// append appends the header to b, with a PAX header before it if it takes one.
func (h *tarHeader) append(b []byte) []byte {
	prefix, name, ok := splitName(h.name)
	records := h.records(ok)
	if len(records) > 0 {
		body := paxBody(records)
		x := tarHeader{name: paxName(h.name), flag: 'x', mode: 0o644, size: int64(len(body))}
		b = x.appendBlock(b, "", x.name)
		b = append(b, body...)
		b = append(b, make([]byte, align(len(body), blockSize)-len(body))...)
	}
	return h.appendBlock(b, prefix, name)
}

// records is what does not fit into the header itself; named says whether the name does.
func (h *tarHeader) records(named bool) map[string]string {
	r := map[string]string{}
	if !named {
		r["path"] = h.name
	}
	if len(h.linkname) > tarName || !isASCII(h.linkname) {
		r["linkpath"] = h.linkname
	}
	if h.uid > maxOctal7 {
		r["uid"] = strconv.FormatUint(uint64(h.uid), 10)
	}
	if h.gid > maxOctal7 {
		r["gid"] = strconv.FormatUint(uint64(h.gid), 10)
	}
	if h.size > maxOctal11 {
		r["size"] = strconv.FormatInt(h.size, 10)
	}
	if h.sec < 0 || h.sec > maxOctal11 || h.nsec != 0 {
		r["mtime"] = paxTime(h.sec, h.nsec)
	}
	for k, v := range h.xattrs {
		// As GNU tar does: "=" ends the key of a record.
		r[xattrRecord+strings.ReplaceAll(k, "=", "%3D")] = v
	}
	return r
}

func (h *tarHeader) appendBlock(b []byte, prefix, name string) []byte {
	at := len(b)
	b = append(b, make([]byte, blockSize)...)
	f := b[at:]
	copy(f[0:tarName], name)
	octal(f[100:108], uint64(h.mode), maxOctal7)
	octal(f[108:116], uint64(h.uid), maxOctal7)
	octal(f[116:124], uint64(h.gid), maxOctal7)
	octal(f[124:136], uint64(h.size), maxOctal11)
	octal(f[136:148], uint64(h.sec), maxOctal11) // a negative one is far too large
	f[156] = h.flag
	copy(f[157:257], h.linkname)
	copy(f[257:265], "ustar\x0000")
	octal(f[329:337], uint64(h.major), maxOctal7)
	octal(f[337:345], uint64(h.minor), maxOctal7)
	copy(f[345:500], prefix)
	copy(f[148:156], "        ")
	var sum uint64
	for _, c := range f {
		sum += uint64(c)
	}
	octal(f[148:155], sum, maxOctal7)
	return b
}

// octal fills f with digits and a zero byte. A number beyond most is in a PAX record, and zero here.
func octal(f []byte, v, most uint64) {
	if v > most {
		v = 0
	}
	for i := len(f) - 2; i >= 0; i-- {
		f[i] = '0' + byte(v&7)
		v >>= 3
	}
}

// splitName distributes a name on the two fields there are for it. Where it does not fit, the last field has its beginning.
func splitName(s string) (prefix, name string, ok bool) {
	if !isASCII(s) {
		return "", toASCII(s), false
	}
	if len(s) <= tarName {
		return "", s, true
	}
	i := strings.LastIndexByte(s[:min(len(s)-1, tarPrefix+1)], '/')
	if i <= 0 || len(s)-i-1 > tarName {
		return "", s[:tarName], false
	}
	return s[:i], s[i+1:], true
}

func paxName(s string) string {
	s = strings.TrimSuffix(s, "/")
	s = "PaxHeaders.0/" + toASCII(s[strings.LastIndexByte(s, '/')+1:])
	return s[:min(len(s), tarName)]
}

func paxBody(records map[string]string) []byte {
	var b []byte
	for _, k := range slices.Sorted(maps.Keys(records)) {
		n := len(k) + len(records[k]) + 3 // a space, "=" and a newline
		size := n + len(strconv.Itoa(n))
		size = n + len(strconv.Itoa(size)) // the length counts itself
		b = fmt.Appendf(b, "%d %s=%s\n", size, k, records[k])
	}
	return b
}

func paxTime(sec int64, nsec uint32) string {
	if nsec == 0 {
		return strconv.FormatInt(sec, 10)
	}
	sign := ""
	if sec < 0 {
		sign, sec, nsec = "-", -(sec + 1), uint32(time.Second)-nsec
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0")
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func toASCII(s string) string {
	b := make([]byte, 0, min(len(s), tarName))
	for i := 0; i < len(s) && len(b) < tarName; i++ {
		if s[i] < 0x80 {
			b = append(b, s[i])
		}
	}
	return string(b)
}
