package images_test

import (
	"testing"

	"github.com/slipwaybuild/slipway/solver/layers/images"
	"github.com/slipwaybuild/slipway/solver/layers/images/imagestest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A store with nothing but its own directories.
func TestOwn(t *testing.T) {
	imagestest.Run(t, func(*testing.T) imagestest.Opener {
		return func() (images.Backing, func() error) { return nil, func() error { return nil } }
	})
}
