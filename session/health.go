package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	methodCheck = healthpb.Health_Check_FullMethodName
	methodWatch = healthpb.Health_Watch_FullMethodName
)

// Health says how patiently the daemon watches clients. Zero fields get the defaults.
//
// A closed connection is noticed at once and needs none of this. Health is about a client that is connected and answers nothing: it may
// be dead, or only suspended, swapping, or sending a lot over a thin line. So a client counts as lost only when its health service failed
// to answer twice in a row and not one byte came from it for as long as Patience.
type Health struct {
	// Interval is how often a client is asked, 5s by default. A client that was heard within it is not asked.
	Interval time.Duration
	// Timeout bounds one answer, 15s by default. It grows to one and a half times what the last answer took.
	Timeout time.Duration
	// Patience is how long a client may be silent altogether, 90s by default.
	Patience time.Duration
	// PingEvery is how often a client without a health service is sent an HTTP/2 ping while a call to it is in progress and
	// nothing comes from it; 1m by default, and never less than 10s. It counts as lost when a ping stays unanswered for Patience.
	PingEvery time.Duration
}

func (h Health) withDefaults() Health {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&h.Interval, 5*time.Second)
	set(&h.Timeout, 15*time.Second)
	set(&h.Patience, 90*time.Second)
	set(&h.PingEvery, time.Minute)
	return h
}

// asked is h for a client that asked to be given up after timeout; 0 changes nothing.
func (h Health) asked(timeout time.Duration) Health {
	if timeout > 0 {
		h.Interval, h.Timeout, h.Patience = timeout, timeout, timeout
	}
	return h
}

// monitor returns why the session must be given up, or nil when ctx ends. Only methods that the client announced are called.
func monitor(ctx context.Context, r *remote, o Health) error {
	if !r.Supports(methodCheck) {
		return nil // HTTP/2 pings do it, see dialOptions; they close the connection
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if r.Supports(methodWatch) {
			if err := watchStatus(ctx, r); err != nil {
				cancel(err)
			}
		}
	}()
	err := check(ctx, r, o)
	if err == nil {
		err = context.Cause(ctx)
	}
	cancel(nil)
	<-watched
	if lost := (*lostError)(nil); errors.As(err, &lost) {
		return lost
	}
	return nil
}

// lostError is a verdict of the monitor.
type lostError struct{ reason string }

func (e *lostError) Error() string { return e.reason }

// watchStatus returns an error when the client says that it stops serving. A stream that breaks says nothing: the connection
// and the checks do.
func watchStatus(ctx context.Context, r *remote) error {
	stream, err := healthpb.NewHealthClient(r.cc).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return nil
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return nil
		}
		if resp.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING {
			return &lostError{reason: "the client says that it no longer serves"}
		}
	}
}

// check asks until ctx ends or the client counts as lost.
func check(ctx context.Context, r *remote, o Health) error {
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	failures, timeout := 0, o.Timeout
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if r.conn.silence() < o.Interval {
			failures = 0
			continue
		}
		took, err := ask(ctx, r, timeout)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failures = 0
			timeout = max(o.Timeout, took+took/2)
			continue
		}
		failures++
		if silent := r.conn.silence(); failures >= 2 && silent >= o.Patience {
			return &lostError{reason: fmt.Sprintf("the client has been silent for %s: health check: %v", silent.Round(time.Second), err)}
		}
	}
}

// ask calls Check. Any answer is one, also that the service or the method is unknown: who answers is alive.
func ask(ctx context.Context, r *remote, timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	_, err := healthpb.NewHealthClient(r.cc).Check(ctx, &healthpb.HealthCheckRequest{})
	took := time.Since(start)
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Canceled, codes.Unavailable:
		return took, err
	default:
		return took, nil
	}
}
