package imageservice

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
)

// onDisk is what content and layers take together.
func (s *Service) onDisk(ctx context.Context) (n int64, err error) {
	err = s.images.Content().Walk(ctx, func(i content.Info) error {
		n += i.Size
		return nil
	})
	if err != nil {
		return 0, err
	}
	list, err := s.layers.Usage(ctx)
	for _, u := range list {
		n += u.Size
	}
	return n, err
}
