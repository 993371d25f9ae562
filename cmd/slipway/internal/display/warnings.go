package display

import (
	"fmt"
	"io"

	"github.com/moby/buildkit/client"
)

// printWarnings lists what the author of the Dockerfile should know, once each: several platforms of one build warn of the same.
func printWarnings(w io.Writer, warnings []client.VertexWarning) error {
	seen := map[string]bool{}
	var list []client.VertexWarning
	for _, warning := range warnings {
		if !seen[string(warning.Short)] {
			seen[string(warning.Short)] = true
			list = append(list, warning)
		}
	}
	if len(list) == 0 {
		return nil
	}
	noun := "warnings"
	if len(list) == 1 {
		noun = "warning"
	}
	if _, err := fmt.Fprintf(w, "\n %d %s found (slipway build --check shows more):\n", len(list), noun); err != nil {
		return fmt.Errorf("write warnings: %w", err)
	}
	for _, warning := range list {
		if _, err := fmt.Fprintf(w, " - %s\n", warning.Short); err != nil {
			return fmt.Errorf("write warnings: %w", err)
		}
	}
	return nil
}
