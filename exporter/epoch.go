package exporter

import (
	"fmt"
	"time"

	"github.com/moby/buildkit/exporter/exptypes"
	"github.com/slipwaybuild/slipway/exporter/attrs"
)

// Epoch is the time that nothing in the result for a platform may be later than; nil for none. What the output was given
// counts, then what the build was, then what the frontend found.
func (in Input) Epoch(own attrs.Epoch, platform string) (*time.Time, error) {
	seconds := in.SourceDateEpoch
	switch {
	case own.Given:
		seconds = own.Seconds
	case seconds == nil:
		v, ok := in.Metadata[exptypes.ExporterEpochKey+"/"+platform]
		if !ok {
			v = in.Metadata[exptypes.ExporterEpochKey]
		}
		var err error
		if seconds, err = attrs.Seconds(string(v)); err != nil {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH from the frontend: %w", err)
		}
	}
	if seconds == nil {
		return nil, nil
	}
	t := time.Unix(*seconds, 0).UTC()
	return &t, nil
}
