package blob

import "cmp"

// What the format or Linux cannot exceed.
const (
	maxName      = 255
	maxLinkname  = 4095
	maxXattrName = 255
	// maxXattrValue is what a 16-bit length can say; Linux allows one byte more.
	maxXattrValue = 65535
	// maxXattrs is the room for the attributes of one inode: its length is a 16-bit number of words.
	maxXattrs = 4 * 65000
)

// Limits bounds what one layer may ask for. A zero field means the default.
type Limits struct {
	// Entries is the number of names, those only implied among them. Default 4,000,000.
	Entries int
	// PathLen is the length of a path in bytes. Default 4096.
	PathLen int
	// Depth is the number of components of a path. Default 1024.
	Depth int
	// XattrBytes is the length of all names and values of extended attributes of an entry. Default 128 KiB.
	XattrBytes int
	// Expanded is the size of all sparse files together, holes included, in bytes. Default 64 GiB.
	Expanded int64
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Entries:    cmp.Or(l.Entries, 4_000_000),
		PathLen:    cmp.Or(l.PathLen, 4096),
		Depth:      cmp.Or(l.Depth, 1024),
		XattrBytes: min(cmp.Or(l.XattrBytes, 128<<10), maxXattrs/2),
		Expanded:   cmp.Or(l.Expanded, 64<<30),
	}
}
