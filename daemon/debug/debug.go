// Package debug serves what those who run a daemon look into it with: profiles (net/http/pprof), metrics (Prometheus) and expvar,
// under BuildKit's paths. Whoever can connect can read all of it.
package debug

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/slipwaybuild/slipway/daemon/listen"
)

// Numbers are what is measured of the engine.
type Numbers interface {
	// Active counts the builds that run.
	Active() int
	// Finished counts builds that ended since the daemon was started, by whether they failed.
	Finished() (good, failed int64)
	// Used and Limit are the bytes the layer store takes and may take; a limit of 0 is none.
	Used() (used, limit int64)
}

// Handler serves all of it.
func Handler(n Numbers) http.Handler {
	m := http.NewServeMux()
	m.Handle("/debug/vars", expvar.Handler())
	m.HandleFunc("/debug/pprof/", pprof.Index)
	m.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	m.HandleFunc("/debug/pprof/profile", pprof.Profile)
	m.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	m.HandleFunc("/debug/pprof/trace", pprof.Trace)
	m.HandleFunc("/debug/gc", func(http.ResponseWriter, *http.Request) { runtime.GC() })
	m.Handle("/metrics", promhttp.HandlerFor(registry(n), promhttp.HandlerOpts{}))
	return m
}

func registry(n Numbers) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("slipway_builds_active", "Builds that run.", func() float64 { return float64(n.Active()) })
	gauge("slipway_layers_used_bytes", "Disk space the layer store takes.", func() float64 { used, _ := n.Used(); return float64(used) })
	gauge("slipway_layers_limit_bytes", "Disk space the layer store may take; 0 is no limit.", func() float64 { _, limit := n.Used(); return float64(limit) })
	for result, value := range map[string]func() float64{
		"success": func() float64 { good, _ := n.Finished(); return float64(good) },
		"failure": func() float64 { _, failed := n.Finished(); return float64(failed) },
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "slipway_builds_total", Help: "Builds that ended.", ConstLabels: prometheus.Labels{"result": result},
		}, value))
	}
	return r
}

// headerTime is how long a peer may take to send its request.
const headerTime = 30 * time.Second

// Server serves the handler at one address.
type Server struct {
	server http.Server
	done   chan error
	addrs  []string
}

// Serve listens at "host:port", "tcp://host:port" or "unix:///path" and serves until it is closed.
func Serve(ctx context.Context, addr string, h http.Handler) (*Server, error) {
	if !strings.Contains(addr, "://") {
		addr = "tcp://" + addr
	}
	list, err := listen.Open(ctx, addr, listen.Options{})
	if err != nil {
		return nil, fmt.Errorf("debug address: %w", err)
	}
	s := &Server{server: http.Server{Handler: h, ReadHeaderTimeout: headerTime}, done: make(chan error, len(list))}
	for _, l := range list {
		s.addrs = append(s.addrs, l.Addr().String())
		go func() { s.done <- s.server.Serve(l) }()
	}
	return s, nil
}

// Addrs are the addresses it serves, one for each socket.
func (s *Server) Addrs() []string { return s.addrs }

// Close ends it, with whatever is being read.
func (s *Server) Close() error {
	err := s.server.Close()
	for range s.addrs {
		if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	}
	return err
}
