package health

// queue holds the results that the reader has not taken yet. It is bounded by merging, never by waiting: a reader
// that hangs must not delay a probe.
type queue struct {
	results []Result
}

// first returns the channel to offer the oldest result on, nil if there is none, and the result.
func (q *queue) first(out chan<- Result) (chan<- Result, Result) {
	if len(q.results) == 0 {
		return nil, Result{}
	}
	return out, q.results[0]
}

func (q *queue) pop() {
	q.results = q.results[1:]
	if len(q.results) == 0 {
		q.results = nil // the array behind it may be large
	}
}

// push appends a result. targets is how many real servers there are.
func (q *queue) push(r Result, targets int) {
	q.results = append(q.results, r)
	if len(q.results) > max(1024, 8*targets) {
		q.merge()
	}
}

// merge keeps one result of each real server: the last one, at the place of the last one, with Changed if any of
// them was a change.
func (q *queue) merge() {
	changed := map[Key]bool{}
	last := map[Key]int{}
	for i, r := range q.results {
		changed[r.Key] = changed[r.Key] || r.Changed
		last[r.Key] = i
	}
	kept := make([]Result, 0, len(last))
	for i, r := range q.results {
		if last[r.Key] == i {
			r.Changed = changed[r.Key]
			kept = append(kept, r)
		}
	}
	q.results = kept
}
