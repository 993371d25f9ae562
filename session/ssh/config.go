package ssh

import (
	"fmt"
	"strconv"
	"strings"
)

// DefaultID is the id of a forward that was given none.
const DefaultID = "default"

// Config is one forward.
type Config struct {
	// ID names it; DefaultID when empty.
	ID string
	// Paths is one socket, or any number of private key files. Empty means the socket in SSH_AUTH_SOCK.
	Paths []string
	// Raw passes everything through to the socket, which need not be an agent's.
	Raw bool
}

// Parse reads the value of an --ssh flag: id, or id=path[,path...] in which one element may be raw=true.
func Parse(value string) (Config, error) {
	id, list, ok := strings.Cut(value, "=")
	c := Config{ID: id}
	if ok {
		for _, p := range strings.Split(list, ",") {
			raw, isRaw := strings.CutPrefix(p, "raw=")
			if !isRaw {
				c.Paths = append(c.Paths, p)
				continue
			}
			b, err := strconv.ParseBool(raw)
			if err != nil {
				return Config{}, fmt.Errorf("invalid value for 'raw': %s: %w", raw, err)
			}
			c.Raw = b
		}
	}
	if c.Raw && len(c.Paths) != 1 {
		return Config{}, fmt.Errorf("raw mode must supply exactly one socket path for %q", c.ID)
	}
	return c, nil
}

// ParseAll reads the values of all --ssh flags of a command.
func ParseAll(values []string) ([]Config, error) {
	configs := make([]Config, 0, len(values))
	for _, v := range values {
		c, err := Parse(v)
		if err != nil {
			return nil, err
		}
		configs = append(configs, c)
	}
	return configs, nil
}
