package exporter

import (
	"github.com/slipwaybuild/slipway/session/filesync"
	"github.com/slipwaybuild/slipway/solver/layers/fsstat"
	"github.com/slipwaybuild/slipway/solver/layers/fstree"
)

// ClientTree is a tree as the session's file sync sends it.
func ClientTree(t fstree.Tree) filesync.Tree { return fsstat.NewTree(t) }
