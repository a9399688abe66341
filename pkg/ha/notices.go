package ha

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/xdirector/xdirector/pkg/lb"
	"github.com/xdirector/xdirector/pkg/vrrp"
)

// Senders can be forged, so what is kept about them is bounded.
const (
	maxSaid       = 1024 // (sender, reason) pairs with a log line
	maxLines      = 1024 // log lines in an hour
	maxMismatches = 64
	maxPeers      = 64
)

// notices is what an instance knows about the other boxes on its virtual router.
type notices struct {
	log        *slog.Logger
	said       map[saying]bool
	mismatches map[saying]*noticed
	peers      []*heard // few
	lines      int      // logged since
	since      vrrp.Time
}

type saying struct {
	sender netip.Addr
	kind   string
}

type noticed struct {
	text  string
	heard vrrp.Time
}

// heard is when a peer was heard last.
type heard struct {
	lb.Director
	at vrrp.Time
}

func newNotices(log *slog.Logger) *notices {
	return &notices{log: log}
}

// differences are the refusals whose cause is the configuration of one of the two boxes.
var differences = [...]vrrp.Reason{vrrp.RefusedVersion, vrrp.RefusedPassword, vrrp.RefusedAuthType, vrrp.RefusedInterval, vrrp.RefusedDestination, vrrp.RefusedPeer}

// refused takes note of a refused advert. changed: a report is due.
func (n *notices) refused(now vrrp.Time, r vrrp.Refused) (changed bool) {
	if r.Reason == vrrp.RefusedCollision {
		return false // told as a mismatch in the same step
	}
	if slices.Contains(differences[:], r.Reason) {
		return n.differs(now, saying{r.Source, string(r.Reason)}, r.Text)
	}
	n.say(now, saying{r.Source, string(r.Reason)}, r.Text)
	return false
}

// mismatch takes note of what an advert differs in; an empty kind means in nothing.
func (n *notices) mismatch(now vrrp.Time, m vrrp.Mismatch) (changed bool) {
	for s := range n.mismatches {
		// An accepted advert ends whatever an older one of the same sender differed in; a collision may be a refusal.
		if s.sender == m.Source && s.kind != m.Kind {
			n.over(now, s)
			changed = true
		}
	}
	if m.Kind == "" {
		return changed
	}
	return n.differs(now, saying{m.Source, m.Kind}, m.Text) || changed
}

func (n *notices) differs(now vrrp.Time, s saying, text string) (changed bool) {
	n.say(now, s, text)
	if old := n.mismatches[s]; old != nil {
		changed = old.text != text
		old.text, old.heard = text, now
		return changed
	}
	if len(n.mismatches) >= maxMismatches {
		return false
	}
	put(&n.mismatches, s, &noticed{text: text, heard: now})
	return true
}

func (n *notices) over(now vrrp.Time, s saying) {
	delete(n.mismatches, s)
	delete(n.said, s) // worth a line again if it comes back
	if n.mayLog(now) {
		n.log.Info("mismatch is over", "sender", s.sender, "kind", s.kind)
	}
}

// say logs a line once per sender and reason.
func (n *notices) say(now vrrp.Time, s saying, text string) {
	if n.said[s] || len(n.said) >= maxSaid || !n.mayLog(now) {
		return
	}
	put(&n.said, s, true)
	n.log.Warn(text, "sender", s.sender, "reason", s.kind)
	if len(n.said) == maxSaid {
		n.log.Warn("too many senders of bad adverts: new ones are not logged any more, all are counted; somebody forges adverts here")
	}
}

// mayLog bounds the lines that others can make us write.
func (n *notices) mayLog(now vrrp.Time) bool {
	if now-n.since > time.Hour {
		n.lines, n.since = 0, now
	}
	n.lines++
	return n.lines <= maxLines
}

// expire ends the mismatches that nobody has shown for that long.
func (n *notices) expire(now vrrp.Time, after time.Duration) (changed bool) {
	for s, m := range n.mismatches {
		if now-m.heard > after {
			n.over(now, s)
			changed = true
		}
	}
	return changed
}

// peer takes note of the sender of an accepted advert. The one heard longest ago makes room for a new one.
func (n *notices) peer(now vrrp.Time, d lb.Director) (p *heard, news bool) {
	at := slices.IndexFunc(n.peers, func(p *heard) bool { return p.Director == d })
	if at < 0 {
		if len(n.peers) >= maxPeers {
			oldest := slices.MinFunc(n.peers, func(a, b *heard) int { return cmp.Compare(a.at, b.at) })
			n.peers = slices.DeleteFunc(n.peers, func(p *heard) bool { return p == oldest })
		}
		at, news = len(n.peers), true
		n.peers = append(n.peers, &heard{Director: d})
	}
	n.peers[at].at = now
	return n.peers[at], news
}

// mismatchList is the current mismatches in a fixed order.
func (n *notices) mismatchList() []Mismatch {
	var list []Mismatch
	for s, m := range n.mismatches {
		list = append(list, Mismatch{Kind: s.kind, Peer: s.sender, Text: m.text})
	}
	slices.SortFunc(list, func(a, b Mismatch) int { return cmp.Or(a.Peer.Compare(b.Peer), cmp.Compare(a.Kind, b.Kind)) })
	return list
}

// peerList is the peers in a fixed order.
func (n *notices) peerList() []lb.Director {
	var list []lb.Director
	for _, p := range n.peers {
		list = append(list, p.Director)
	}
	slices.SortFunc(list, func(a, b lb.Director) int {
		return cmp.Or(a.Address.Compare(b.Address), slices.Compare(a.MAC[:], b.MAC[:]))
	})
	return list
}
