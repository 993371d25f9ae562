package progress

// Ready tells whether Next would return without waiting: how a reader gathers what is there into one message.
func (r *Reader) Ready() bool {
	if r.ended {
		return true
	}
	size, done, _, _ := r.j.visible()
	return r.off < size || done
}
