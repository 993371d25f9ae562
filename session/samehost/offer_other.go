//go:build !linux

package samehost

import (
	"github.com/slipwaybuild/slipway/session"
	"google.golang.org/grpc"
)

// New returns an attachable that offers nothing: only Linux lets a daemon act as its client.
func New(Offer) session.Attachable { return nothing{} }

type nothing struct{}

func (nothing) Register(*grpc.Server) {}
