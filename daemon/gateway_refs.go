package daemon

import (
	"crypto/rand"
	"fmt"
	"strings"
	"sync"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// maxHandles bounds how many references one driver may hold. Frontends hold a handful per platform.
const maxHandles = 1 << 16

// handles names references by ids that cannot be guessed. The zero value is ready.
type handles struct {
	mu   sync.Mutex
	byID map[string]gwclient.Reference
}

// keep names a reference.
func (h *handles) keep(ref gwclient.Reference) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.byID) >= maxHandles {
		return "", grpcerrors.WrapCode(fmt.Errorf("a build holds %d references at most", maxHandles), codes.ResourceExhausted)
	}
	if h.byID == nil {
		h.byID = map[string]gwclient.Reference{}
	}
	id := strings.ToLower(rand.Text())
	h.byID[id] = ref
	return id, nil
}

// find returns the reference that was given the id.
func (h *handles) find(id string) (gwclient.Reference, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ref, ok := h.byID[id]; ok {
		return ref, nil
	}
	return nil, grpcerrors.WrapCode(fmt.Errorf("no such reference in this build: %q", id), codes.NotFound)
}
