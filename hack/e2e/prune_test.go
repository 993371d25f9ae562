package e2e

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// usage lists what is on disk, but for what the store keeps for itself.
func (h historian) usage(opts ...client.DiskUsageOption) map[string]*client.UsageInfo {
	h.t.Helper()
	list, err := h.DiskUsage(h.t.Context(), opts...)
	if err != nil {
		h.t.Fatal(err)
	}
	found := map[string]*client.UsageInfo{}
	for _, u := range list {
		if u.RecordType != client.UsageRecordTypeInternal {
			found[u.ID] = u
		}
	}
	return found
}

func (h historian) prune(opts ...client.PruneOption) (gone []client.UsageInfo) {
	h.t.Helper()
	ch := make(chan client.UsageInfo)
	var wg sync.WaitGroup
	wg.Go(func() {
		for u := range ch {
			gone = append(gone, u)
		}
	})
	err := h.Prune(h.t.Context(), ch, opts...)
	close(ch)
	wg.Wait()
	if err != nil {
		h.t.Fatal(err)
	}
	return gone
}

// Every field and option of DiskUsage and Prune means here what it means to BuildKit.
func TestDiskUsageAndPrune(t *testing.T) {
	d := startDaemon(t)
	h, held := d.historian(), 1-d.broughtFor(1) // by the image; one that a containerd has holds nothing
	image := []client.ExportEntry{{Type: client.ExporterImage, Attrs: map[string]string{"name": "example.com/held:1"}}}
	text := "RUN --mount=type=cache,target=/c head -c 300000 /dev/zero > /c/f && echo made > /made\nFROM scratch\nCOPY --from=base /made /made\n"
	if err := h.build(t.Context(), client.SolveOpt{Exports: image}, text); err != nil {
		t.Fatal(err)
	}
	all := h.usage()
	kinds := map[client.UsageRecordType]int{}
	shared, children := 0, 0
	for _, u := range all {
		kinds[u.RecordType]++
		if u.Shared {
			shared++
		}
		if len(u.Parents) > 0 {
			children++
		}
		if u.Description == "" || u.CreatedAt.IsZero() || u.LastUsedAt == nil || u.InUse || u.Mutable != (u.RecordType == client.UsageRecordTypeCacheMount) {
			t.Errorf("record: %+v", *u)
		}
	}
	if kinds[client.UsageRecordTypeCacheMount] != 1 || kinds[client.UsageRecordTypeLocalSource] < 2 || kinds[client.UsageRecordTypeRegular] < 3 || shared != held || children == 0 {
		t.Fatalf("kinds %v, %d shared, %d with parents", kinds, shared, children)
	}
	for filter, want := range map[string]int{
		"type==exec.cachemount": 1, "type==nothing": 0, "shared": shared, "private": len(all) - shared, "mutable": 1, "inuse": 0,
		"immutable,type==source.local": kinds[client.UsageRecordTypeLocalSource], "description~=/COPY/,shared": held,
	} {
		if got := h.usage(client.WithFilter([]string{filter})); len(got) != want {
			t.Errorf("%s: %d records, want %d", filter, len(got), want)
		}
	}
	if got := h.usage(client.WithFilter([]string{"type==exec.cachemount", "shared"})); len(got) != 1+shared {
		t.Errorf("one filter or the other: %d records", len(got))
	}
	if got := h.usage(client.WithAgeLimit(time.Hour)); len(got) != 0 {
		t.Errorf("unused for an hour: %d records", len(got))
	}
	for _, err := range []error{
		second(h.DiskUsage(t.Context(), client.WithFilter([]string{"type=="}))),
		h.Prune(t.Context(), nil, client.WithFilter([]string{"type=="})),
	} {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("an invalid filter: %v", err)
		}
	}

	for name, o := range map[string]client.PruneOption{
		"young": client.WithKeepOpt(time.Hour, 0, 0, 0), "reserved": client.WithKeepOpt(0, 1<<40, 0, 0),
		"below the most": client.WithKeepOpt(0, 0, 1<<40, 0), "enough is free": client.WithKeepOpt(0, 0, 0, 1),
		"nothing matches": client.WithFilter([]string{"type==nothing"}),
	} {
		if gone := h.prune(o); len(gone) != 0 {
			t.Errorf("%s: pruned %+v", name, gone)
		}
	}
	gone := h.prune(client.WithFilter([]string{"type==exec.cachemount"}))
	if len(gone) != 1 || gone[0].Size < 300000 || !gone[0].Mutable || gone[0].RecordType != client.UsageRecordTypeCacheMount {
		t.Errorf("cache mounts: %+v", gone)
	}
	gone = h.prune()
	if i := slices.IndexFunc(gone, func(u client.UsageInfo) bool { return u.Shared }); i >= 0 {
		t.Errorf("pruned %+v, which an image holds", gone[i])
	}
	if left := h.usage(); len(left) != shared {
		t.Errorf("%d records are left, want the image's %d", len(left), shared)
	}
	h.prune(client.PruneAll)
	if left := h.usage(); len(left) != 0 {
		t.Errorf("%d records are left of the cache", len(left))
	}
}

func second[T any](_ T, err error) error { return err }
