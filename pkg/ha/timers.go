package ha

import "github.com/xdirector/xdirector/pkg/vrrp"

// timers is a heap of the instances that want to be called at a moment, the first of them on top. An event costs the
// logarithm of their number, waiting costs nothing. One that is put off, as with each advert that a BACKUP hears, costs nothing
// either: it keeps its place, and is moved when that is the first.
type timers []*instance

// set has the instance called at due, instead of what was set before.
func (t *timers) set(i *instance, due vrrp.Time) {
	i.due = due
	switch {
	case i.heapAt < 0:
		i.heapAt = len(*t)
		*t = append(*t, i)
	case due >= i.place:
		return
	}
	i.place = due
	t.up(i.heapAt)
}

// cut has it not called at all.
func (t *timers) cut(i *instance) {
	at, last := i.heapAt, len(*t)-1
	if at < 0 {
		return
	}
	t.swap(at, last)
	(*t)[last] = nil
	*t = (*t)[:last]
	i.heapAt = -1
	if at < last {
		t.down(t.up(at))
	}
}

// first returns the instance that is due first; nil: none is.
func (t timers) first() *instance {
	if len(t) == 0 {
		return nil
	}
	for t[0].place != t[0].due {
		t[0].place = t[0].due
		t.down(0)
	}
	return t[0]
}

func (t timers) up(at int) int {
	for at > 0 {
		parent := (at - 1) / 2
		if t[parent].place <= t[at].place {
			break
		}
		t.swap(at, parent)
		at = parent
	}
	return at
}

func (t timers) down(at int) {
	for {
		child := 2*at + 1
		if child >= len(t) {
			return
		}
		if right := child + 1; right < len(t) && t[right].place < t[child].place {
			child = right
		}
		if t[at].place <= t[child].place {
			return
		}
		t.swap(at, child)
		at = child
	}
}

func (t timers) swap(a, b int) {
	t[a], t[b] = t[b], t[a]
	t[a].heapAt, t[b].heapAt = a, b
}
