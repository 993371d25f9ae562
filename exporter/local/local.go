// Package local is the output that writes files into a directory of the client. They belong to whoever runs the client.
package local

import (
	"context"

	"github.com/slipwaybuild/slipway/exporter"
	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/solver/layers"
	"github.com/slipwaybuild/slipway/solver/progress"
)

// Type is the output's type in requests.
const Type = "local"

// New returns the factory.
func New(store *layers.Store) exporter.Factory {
	return func(id int, a map[string]string) (exporter.Exporter, error) {
		o, err := exporter.ParseTreeOptions(a)
		if err != nil {
			return nil, err
		}
		return &local{store: store, id: id, options: o}, nil
	}
}

type local struct {
	store   *layers.Store
	id      int
	options exporter.TreeOptions
}

func (*local) Name() string { return "exporting to client directory" }

// Export sends the merged tree; nothing is mounted for it.
func (l *local) Export(ctx context.Context, in exporter.Input, p progress.Writer) (map[string]string, error) {
	tree, err := exporter.Trees(ctx, l.store, in, l.options, p)
	if err != nil {
		return nil, err
	}
	sent := exporter.Meter(p, progress.Status{ID: "copying files"})
	defer sent.Done()
	return nil, exporter.ToClient(ctx, in.Sessions, func(ctx context.Context, c session.Caller) error {
		return exporter.WriteTree(ctx, in.Host, c, l.id, tree, sent.Add)
	})
}
