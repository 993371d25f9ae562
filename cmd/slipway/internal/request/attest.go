package request

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// setAttests reads --attest, and --provenance and --sbom, which are short for it: a boolean, or what --attest says besides its type.
func setAttests(attrs map[string]string, o Options) error {
	list := o.Attests
	for kind, v := range map[string]string{"provenance": o.Provenance, "sbom": o.SBOM} {
		if v == "" {
			continue
		}
		if on, err := strconv.ParseBool(v); err == nil {
			v = "disabled=" + strconv.FormatBool(!on)
		}
		list = append(list, "type="+kind+","+v)
	}
	for _, a := range list {
		fields, err := csvvalue.Fields(a, nil)
		if err != nil {
			return fmt.Errorf("invalid attestation %q: %w", a, err)
		}
		kind, rest, disabled := "", []string{}, false
		for _, f := range fields {
			k, v, ok := strings.Cut(f, "=")
			switch {
			case !ok && len(fields) == 1:
				kind = f
			case !ok:
				return fmt.Errorf("invalid attestation %q: expected key=value, not %q", a, f)
			case k == "type":
				kind = v
			case k == "disabled":
				if disabled, err = strconv.ParseBool(v); err != nil {
					return fmt.Errorf("invalid attestation %q: disabled=%q is no boolean", a, v)
				}
			default:
				rest = append(rest, quoted(f))
			}
		}
		if kind == "" {
			return fmt.Errorf("invalid attestation %q: it has no type", a)
		}
		delete(attrs, "attest:"+kind)
		if !disabled {
			attrs["attest:"+kind] = strings.Join(rest, ",")
		}
	}
	return nil
}

// quoted is a field of a CSV line.
func quoted(f string) string {
	if strings.ContainsAny(f, `",`) {
		return `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
	}
	return f
}
