package daemon

import (
	"fmt"
	"time"

	"github.com/slipwaybuild/slipway/daemon/config"
	"golang.org/x/sys/unix"
)

// Without a configuration the store may take four fifths of its file system, and at most 100 GiB; collecting leaves a fifth of the
// file system free, as long as a tenth of it, or 10 GiB, is left for what was built.
const (
	usualPercent         = 80
	usualMost            = 100 << 30
	usualFreePercent     = 20
	usualReservedPercent = 10
	usualReserved        = 10 << 30
)

// Times and sizes of the usual rules.
const (
	reproducibleAge  = 48 * time.Hour
	reproducibleMost = 512 << 20
	unusedAge        = 60 * 24 * time.Hour
)

// diskTotal is the size of the file system that holds root, in bytes.
func diskTotal(root string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return 0, fmt.Errorf("measure file system of %s: %w", root, err)
	}
	return int64(st.Blocks) * st.Bsize, nil
}

// diskLimit is the ceiling on what the layer store keeps, in bytes, on a file system of total bytes; 0 is none. Nothing is ever
// built over it, whatever the rules of collecting say. It is there even when those are switched off, if it was asked for.
func diskLimit(total int64, c config.OCI) int64 {
	if n := c.MaxUsedSpace.Of(total); n > 0 {
		return n
	}
	if c.GC != nil && !*c.GC {
		return 0
	}
	var most int64
	for _, p := range c.GCPolicy {
		// A rule about some of what is kept says nothing of all of it.
		if len(p.Filters) == 0 && p.KeepDuration.Duration == 0 {
			most = max(most, p.MaxUsedSpace.Of(total))
		}
	}
	if most == 0 {
		most = min(total/100*usualPercent, usualMost)
	}
	return max(most, reserved(c.ReservedSpace, c.GCKeepStorage, total))
}

func reserved(now, deprecated config.DiskSpace, total int64) int64 {
	if n := now.Of(total); n > 0 {
		return n
	}
	return deprecated.Of(total)
}

// GCRule is one rule of what is removed after a build: what it allows to go goes, longest unused first, until the sizes are met.
type GCRule struct {
	// All also takes what the engine keeps for itself.
	All bool
	// Filters are containerd's; any of them may match, none match all.
	Filters []string
	// KeepDuration spares what was used within it.
	KeepDuration time.Duration
	// Sizes in bytes; 0 is no limit. Below Reserved nothing is removed. Without MaxUsed and MinFree all that may go goes.
	Reserved, MaxUsed, MinFree int64
}

// gcRules are the configured rules, or the usual ones, in the order in which they are followed. None are followed if collecting is
// switched off.
func gcRules(total int64, c config.OCI) []GCRule {
	if c.GC != nil && !*c.GC {
		return nil
	}
	if len(c.GCPolicy) == 0 {
		return usualRules(total, c)
	}
	rules := make([]GCRule, 0, len(c.GCPolicy))
	for _, p := range c.GCPolicy {
		rules = append(rules, GCRule{
			All: p.All, Filters: p.Filters, KeepDuration: p.KeepDuration.Duration,
			Reserved: reserved(p.ReservedSpace, p.KeepBytes, total), MaxUsed: p.MaxUsedSpace.Of(total), MinFree: p.MinFreeSpace.Of(total),
		})
	}
	return rules
}

// usualRules are BuildKit's: what is easily had again goes first, then what was not used for long, then whatever is too much.
func usualRules(total int64, c config.OCI) []GCRule {
	r := GCRule{Reserved: reserved(c.ReservedSpace, c.GCKeepStorage, total), MaxUsed: c.MaxUsedSpace.Of(total), MinFree: c.MinFreeSpace.Of(total)}
	if r.Reserved == 0 && r.MaxUsed == 0 && r.MinFree == 0 {
		r.Reserved = min(total/100*usualReservedPercent, usualReserved)
		r.MaxUsed = diskLimit(total, c)
		r.MinFree = total / 100 * usualFreePercent
	}
	unused, all := r, r
	unused.KeepDuration = unusedAge
	all.All = true
	return []GCRule{
		{
			Filters:      []string{"type==source.local", "type==exec.cachemount", "type==source.git.checkout"},
			KeepDuration: reproducibleAge, MaxUsed: reproducibleMost,
		},
		unused, r, all,
	}
}
