// Package devices knows the host's devices that containers may be given, as the Container Device Interface describes them: files
// in a few directories, each of one kind of device ("vendor.com/class"), say what has to be added to a container so that it can use
// a device ("vendor.com/class=name").
package devices

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// Annotations of devices, and of the files that describe them, that say how builds use them. They are BuildKit's.
const (
	classAnnotation     = "org.mobyproject.buildkit.device.class"
	autoAllowAnnotation = "org.mobyproject.buildkit.device.autoallow"
)

// Options goes with [New].
type Options struct {
	// Dirs hold the descriptions; where two describe one device, that of the later directory counts. They need not exist.
	Dirs []string
	// AutoAllowed names devices, or kinds of them, that every build may use.
	AutoAllowed []string
	// Logger takes what is wrong with descriptions; nil is silence.
	Logger *slog.Logger
}

// Registry reads the descriptions whenever it is asked, so that what an operator changes counts from the next step on. Safe for
// concurrent use.
type Registry struct {
	cache       *cdi.Cache
	autoAllowed []string
	log         *slog.Logger

	mu   sync.Mutex // guards what follows
	told string     // the last complaint: it is made once
}

// New returns a registry. That a description cannot be read is logged, and no error.
func New(o Options) (*Registry, error) {
	if len(o.Dirs) == 0 {
		return nil, errors.New("devices: no directories to look for descriptions in")
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// Watching directories would need a goroutine, and misses what is mounted over them.
	cache, err := cdi.NewCache(cdi.WithAutoRefresh(false), cdi.WithSpecDirs(o.Dirs...))
	if err != nil {
		return nil, fmt.Errorf("devices: %w", err)
	}
	r := &Registry{cache: cache, autoAllowed: slices.Clone(o.AutoAllowed), log: log}
	r.refresh()
	return r, nil
}

func (r *Registry) refresh() {
	text := ""
	if err := r.cache.Refresh(); err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if text != "" && text != r.told {
		r.log.Warn("read descriptions of devices", "error", text)
	}
	r.told = text
}

// Device is one device of the host.
type Device struct {
	// Name is the whole name, "vendor.com/class=name".
	Name string
	// AutoAllow says that every build may use it.
	AutoAllow bool
	// Annotations are those of its description, then its own over them.
	Annotations map[string]string
}

// kind is the name's part that devices of one description share.
func (d Device) kind() string {
	kind, _, _ := strings.Cut(d.Name, "=")
	return kind
}

// Devices are those that there are at one moment, sorted by name.
type Devices []Device

// List reads what devices there are.
func (r *Registry) List() Devices {
	r.refresh()
	var list Devices
	for _, name := range r.cache.ListDevices() {
		found := r.cache.GetDevice(name)
		if found == nil {
			continue // read anew meanwhile, and gone
		}
		d := Device{Name: name, Annotations: map[string]string{}}
		maps.Copy(d.Annotations, found.GetSpec().Annotations)
		maps.Copy(d.Annotations, found.Annotations)
		auto, err := strconv.ParseBool(d.Annotations[autoAllowAnnotation])
		d.AutoAllow = err == nil && auto || slices.Contains(r.autoAllowed, name) || slices.Contains(r.autoAllowed, d.kind())
		list = append(list, d)
	}
	return list
}

// Find returns the devices that a request means, none if there are none: for a whole name that device, for a kind the first of its
// devices, for "kind=*" all of them. What is no such name, or means none of them, is a class: all devices that say they
// are of it.
func (l Devices) Find(request string) Devices {
	kind, name, _ := strings.Cut(request, "=")
	if vendor, _ := parser.ParseQualifier(kind); vendor != "" {
		all := l.where(func(d Device) bool { return d.kind() == kind })
		switch {
		case name == "*":
		case name == "" && len(all) > 0:
			all = all[:1]
		default:
			all = all.where(func(d Device) bool { return d.Name == request })
		}
		if len(all) > 0 {
			return all
		}
	}
	return l.where(func(d Device) bool { return request != "" && d.Annotations[classAnnotation] == request })
}

func (l Devices) where(is func(Device) bool) Devices {
	var out Devices
	for _, d := range l {
		if is(d) {
			out = append(out, d)
		}
	}
	return out
}

// Names lists their whole names.
func (l Devices) Names() []string {
	var out []string
	for _, d := range l {
		out = append(out, d.Name)
	}
	return out
}

// Edits are what has to be added to a container for it to have devices, which go by their whole names. They are the caller's. A
// device that is not there is a [MissingError].
func (r *Registry) Edits(names []string) (*cdi.ContainerEdits, error) {
	r.refresh()
	edits := &cdi.ContainerEdits{}
	seen := map[*cdi.Spec]bool{}
	for _, name := range names {
		d := r.cache.GetDevice(name)
		if d == nil {
			return nil, &MissingError{Name: name}
		}
		// What a description says of all its devices comes once, before any of them.
		if s := d.GetSpec(); !seen[s] {
			seen[s] = true
			edits = edits.Append(&cdi.ContainerEdits{ContainerEdits: &s.ContainerEdits})
		}
		edits = edits.Append(&cdi.ContainerEdits{ContainerEdits: &d.ContainerEdits})
	}
	return edits, nil
}

// MissingError names a device that a step needs and this host does not have.
type MissingError struct{ Name string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("required device %q is not registered", e.Name)
}
