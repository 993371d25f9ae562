package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Duration is a time span, written as seconds or as "48h".
type Duration struct{ time.Duration }

// UnmarshalTOML reads a number of seconds or a string.
func (d *Duration) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		d.Duration = time.Duration(v) * time.Second
		return nil
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			d.Duration = time.Duration(n) * time.Second
			return nil
		}
		parsed, err := time.ParseDuration(v)
		if err != nil {
			return fmt.Errorf("%q is no duration: write seconds or a form like 48h", v)
		}
		d.Duration = parsed
		return nil
	}
	return fmt.Errorf("a duration is a number of seconds or a string, not %T", v)
}

// DiskSpace is a size, in bytes or in per cent of the file system. The zero value is "not set".
type DiskSpace struct {
	Bytes   int64
	Percent int64
}

// UnmarshalTOML reads a number of bytes, "512MB" or "10%".
func (d *DiskSpace) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		if v < 0 {
			return fmt.Errorf("a size cannot be negative: %d", v)
		}
		d.Bytes = v
		return nil
	case string:
		n, err := ParseDiskSpace(v)
		if err == nil {
			*d = n
		}
		return err
	}
	return fmt.Errorf("a size is a number of bytes or a string, not %T", v)
}

// ParseDiskSpace reads a number of bytes, "512MB" or "10%". Units are powers of 1024, as buildkitd reads them.
func ParseDiskSpace(v string) (DiskSpace, error) {
	if p, ok := strings.CutSuffix(v, "%"); ok {
		n, err := strconv.ParseInt(p, 10, 64)
		if err != nil || n < 0 || n > 100 {
			return DiskSpace{}, fmt.Errorf("%q is no percentage from 0%% to 100%%", v)
		}
		return DiskSpace{Percent: n}, nil
	}
	n, err := units.RAMInBytes(v)
	if err != nil || n < 0 {
		return DiskSpace{}, fmt.Errorf("%q is no size: write bytes, or a form like 512MB or 10%%", v)
	}
	return DiskSpace{Bytes: n}, nil
}

// Of returns the size in bytes on a file system of total bytes.
func (d DiskSpace) Of(total int64) int64 {
	if d.Percent > 0 {
		return total / 100 * d.Percent
	}
	return d.Bytes
}
