package history

import controlapi "github.com/moby/buildkit/api/services/control"

// maskRecord takes secrets out of what the client asked and was answered. It is called under mu.
func (b *Build) maskRecord(r *controlapi.BuildHistoryRecord) {
	if b.start.Mask == nil {
		return
	}
	maskAll(b.start.Mask, r.FrontendAttrs)
	maskAll(b.start.Mask, r.ExporterResponse)
	for _, e := range r.Exporters {
		maskAll(b.start.Mask, e.Attrs)
	}
}

func maskAll(mask func(string) string, m map[string]string) {
	for k, v := range m {
		m[k] = mask(v)
	}
}
