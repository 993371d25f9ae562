package main

import (
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// onHangup calls do for every SIGHUP until stop, which waits for the last one.
func onHangup(do func()) (stop func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-signals:
				do()
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(done)
		wg.Wait()
	}
}

// reload takes over what can be changed while the daemon runs: the log level, what is in the files of certificates,
// and the settings of the Engine API. All else needs
// a new start; a configuration that cannot be read changes nothing.
func reload(f *flags, level *slog.LevelVar, d *doors, s *settings, log *slog.Logger) {
	c, warnings, err := f.load()
	if err != nil {
		log.Error("reload configuration", "error", err)
		return
	}
	for _, w := range warnings {
		log.Warn(w)
	}
	l, err := logLevel(c)
	if err != nil {
		log.Error("reload configuration", "error", err)
		return
	}
	level.Set(l)
	s.set(c)
	if d.certs != nil {
		if err := d.certs.Reload(); err != nil {
			log.Error("reload certificates", "error", err)
			return
		}
	}
	log.Info("configuration reloaded; keys that are not read again keep their values", "level", l)
}

// notify tells the service manager, if there is one that wants to know.
func notify(log *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("tell the service manager", "state", state, "error", err)
	}
}
