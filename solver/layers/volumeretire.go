package layers

import "strings"

// RetireVolumes makes whoever next opens a volume of the key, or of the key over a base (key ":" base), begin with a new one. Those
// who have an old one keep it; it goes with its last user.
func (s *Store) RetireVolumes(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, k := range s.volumes {
		if name != key && !strings.HasPrefix(name, key+":") {
			continue
		}
		for _, d := range append([]*volumeDir(nil), k.dirs...) {
			if d.users == 0 {
				s.forgetVolume(d)
				continue
			}
			d.retired = true
		}
	}
}
