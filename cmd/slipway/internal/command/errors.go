package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/moby/buildkit/solver/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// printError shows what went wrong, after the lines of the Dockerfile it went wrong in.
func printError(w io.Writer, err error) {
	for _, src := range errdefs.Sources(err) {
		// Nothing more can be said if the terminal is gone.
		_ = src.Print(w)
	}
	fmt.Fprintf(w, "ERROR: %s\n", message(err))
}

// message is the error as the daemon wrote it, without gRPC's own words around it.
func message(err error) string {
	s := err.Error()
	if st, ok := status.FromError(err); ok && st.Message() != "" {
		s = st.Message()
	}
	if _, rest, ok := strings.Cut(s, " desc = "); ok && strings.HasPrefix(s, "rpc error: code = ") {
		s = rest
	}
	// BuildKit's error wrapper writes the code in front.
	if code := status.Code(err); code != codes.OK && code != codes.Unknown {
		s = strings.TrimPrefix(s, code.String()+": ")
	}
	return s
}
