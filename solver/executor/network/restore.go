package network

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// addresses are those of a namespace's interfaces, "10.0.0.1/16" by name of the interface; loopback has none of interest.
type addresses map[string][]string

// at runs do with a handle on the namespace at path.
func at(path string, do func(*netlink.Handle) error) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	defer h.Close()
	return do(h)
}

func addressesOf(h *netlink.Handle) (addresses, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	all := addresses{}
	for _, l := range links {
		list, err := h.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			if !a.IP.IsLoopback() {
				all[l.Attrs().Name] = append(all[l.Attrs().Name], a.IPNet.String())
			}
		}
	}
	return all, nil
}

// remember notes the addresses that the plugins gave.
func (ns *Namespace) remember() error {
	return at(ns.path, func(h *netlink.Handle) (err error) {
		ns.given, err = addressesOf(h)
		return err
	})
}

// restore puts the addresses back to what the plugins gave: they find the packet filter rules they have to remove by them.
func (ns *Namespace) restore() error {
	return at(ns.path, func(h *netlink.Handle) error {
		now, err := addressesOf(h)
		if err != nil {
			return err
		}
		var errs []error
		for name, list := range now {
			errs = append(errs, change(h, name, list, ns.given[name], h.AddrDel))
		}
		for name, list := range ns.given {
			errs = append(errs, change(h, name, list, now[name], h.AddrAdd))
		}
		return errors.Join(errs...)
	})
}

// change applies do to those addresses of an interface that are in list and not in spared.
func change(h *netlink.Handle, name string, list, spared []string, do func(netlink.Link, *netlink.Addr) error) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	for _, text := range list {
		if slices.Contains(spared, text) {
			continue
		}
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := do(link, a); err != nil {
			return fmt.Errorf("address %s of %s: %w", text, name, err)
		}
	}
	return nil
}
