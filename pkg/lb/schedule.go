package lb

import (
	"cmp"
	"container/heap"
	"hash/fnv"
	"slices"
)

// Schedule returns where new flows go, as indexes into the RealServers of a service: those that are schedulable and can be
// reached. An empty result means that no real server can take a new flow.
//
// With rr and wrr it is an order that flows follow in turn. Round robin ignores weights other than 0. Weighted round robin is
// the order of the Linux kernel's ip_vs_wrr: the weight threshold falls from the largest weight by their greatest common
// divisor.
//
// With lc and wlc it is each of them once: the plane chooses.
//
// With sh and mh it is a table that the hash of a client's address points into. It is the same on every director, whatever the
// order of the real servers in the configuration. In that of sh each has as many places as its weight says, so a real server
// that comes or goes moves nearly all clients. That of mh is Maglev's, which moves few but those of the server itself: see
// maglev.
func Schedule(s Service) []int {
	live := schedulable(s)
	if len(live) == 0 {
		return nil
	}
	if s.Scheduler.Hashes() {
		slices.SortFunc(live, byAddress(s.RealServers))
	}
	switch s.Scheduler {
	case RoundRobin, LeastConnection, WeightedLeastConnection:
		return live
	case MaglevHashing:
		return maglev(s.RealServers, live, maglevSize(len(s.RealServers)))
	}
	return byThreshold(s.RealServers, live)
}

// Unscheduled returns where flows go that can have no turn, in a service that schedules in turn: a table of Maglev hashing, the
// same on every director. It is empty if Schedule says where they go.
func Unscheduled(s Service) []int {
	if s.Scheduler.Hashes() {
		return nil
	}
	live := schedulable(s)
	if len(live) == 0 {
		return nil
	}
	servers := slices.Clone(s.RealServers)
	for i := range servers {
		if s.Scheduler.IgnoresWeights() {
			servers[i].Weight = 1
		}
	}
	slices.SortFunc(live, byAddress(servers))
	return maglev(servers, live, maglevSize(len(servers)))
}

func schedulable(s Service) []int {
	var live []int
	for i, r := range s.RealServers {
		if r.Schedulable() && r.NextHop.Known() {
			live = append(live, i)
		}
	}
	return live
}

func byAddress(servers []RealServer) func(a, b int) int {
	return func(a, b int) int { return servers[a].Address.Compare(servers[b].Address) }
}

// SameSchedule says that both services have the same Schedule, without making it.
func SameSchedule(a, b Service) bool {
	return a.Scheduler == b.Scheduler && slices.EqualFunc(a.RealServers, b.RealServers, func(x, y RealServer) bool {
		takes := x.Schedulable() && x.NextHop.Known()
		return x.Address == y.Address && takes == (y.Schedulable() && y.NextHop.Known()) && (!takes || x.Weight == y.Weight)
	})
}

func byThreshold(servers []RealServer, live []int) []int {
	divisor, largest := uint16(0), uint16(0)
	for _, i := range live {
		divisor = gcd(divisor, servers[i].Weight)
		largest = max(largest, servers[i].Weight)
	}
	var order []int
	for threshold := int(largest); threshold > 0; threshold -= int(divisor) {
		for _, i := range live {
			if int(servers[i].Weight) >= threshold {
				order = append(order, i)
			}
		}
	}
	return order
}

func gcd(a, b uint16) uint16 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// maglevSize is the length of the table for so many real servers, live or not: the smallest of these primes with a hundred
// places for each, so that equal weights get equal shares but for a percent. It depends on nothing that changes with a
// server's health, and is the same on all directors.
func maglevSize(servers int) int {
	primes := []int{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071}
	for _, p := range primes {
		if p >= 100*servers {
			return p
		}
	}
	return primes[len(primes)-1]
}

// maglev makes a table of Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
// 2016, section 3.4). Each server would have all places in an order of its own, made from its address. The next place goes to
// the server that has the least for its weight, the first of those in the order of live.
func maglev(servers []RealServer, live []int, size int) []int {
	table := make([]int, size)
	for i := range table {
		table[i] = -1
	}
	var all claimants
	for rank, i := range live {
		h := fnv.New64a()
		h.Write(servers[i].Address.AsSlice()) // never fails
		mixed := mix(h.Sum64())
		all = append(all, &claimant{
			server: i, rank: rank, weight: int(servers[i].Weight),
			next: int(mixed % uint64(size)), skip: 1 + int(mix(mixed)%uint64(size-1)),
		})
	}
	heap.Init(&all)
	for range size {
		c := all[0]
		for table[c.next] >= 0 {
			c.next = (c.next + c.skip) % size
		}
		table[c.next] = c.server
		c.places++
		heap.Fix(&all, 0)
	}
	return table
}

// mix spreads what differs in a few bits over all of them (the finalizer of MurmurHash3, Appleby 2011).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// claimant is a server that claims places in a table.
type claimant struct {
	server, rank, weight, places int
	next, skip                   int
}

// claimants is a heap: the first one has the least places for its weight, counting half of the one it would get (Sainte-Laguë's
// method for seats in a parliament, which favours neither large nor small weights).
type claimants []*claimant

func (c claimants) Len() int { return len(c) }

func (c claimants) Less(i, j int) bool {
	a, b := c[i], c[j]
	return cmp.Or(cmp.Compare((2*a.places+1)*b.weight, (2*b.places+1)*a.weight), cmp.Compare(a.rank, b.rank)) < 0
}

func (c claimants) Swap(i, j int) { c[i], c[j] = c[j], c[i] }

// Push and Pop implement heap.Interface; the heap keeps its length.
func (c *claimants) Push(x any) { *c = append(*c, x.(*claimant)) }

// Pop implements heap.Interface.
func (c *claimants) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}
