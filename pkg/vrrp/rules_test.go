package vrrp

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rules are the rules of the protocol that this package obeys, each with what proves it: scenarios (FILE/HEADING, as
// far as it is written) and tests. RFC section numbers are those of RFC 9568 if not said otherwise.
var rules = []struct {
	id   string // for version 2 and keepalived's own rules, see the text
	rule string
	by   []string
}{
	// What is sent.
	{"V-06", "version and type are 0x31 or 0x21 (5.2.1, 5.2.2)", []string{"TestAdvertsLookAsKeepalivedSendsThem"}},
	{"V-08", "priority 255 is the owner's, 0 says \"I stop\" (5.2.4)", []string{"start/the owner is MASTER at once", "stop/a MASTER hands over"}},
	{"V-09", "the addresses are the configured ones in their order (5.2.9)", []string{"TestAdvertsLookAsKeepalivedSendsThem", "reload/a MASTER adds and announces new addresses"}},
	{"V-11", "the routers of two families are two instances (5.2.9)", []string{"ipv6/an IPv6 router elects as an IPv4 one does"}},
	{"V-12", "the reserved bits are 0 (5.2.6)", []string{"TestAdvertsLookAsKeepalivedSendsThem"}},
	{"V-13", "the interval is in centiseconds, 1 to 4095 (5.2.7, erratum 8301)", []string{"TestLimitsOfTheFormatSurviveBothWays"}},
	{"V-14", "version 2: the interval is in seconds, 8 bytes of authentication always follow (RFC 3768 5.3)", []string{"TestAdvertsLookAsKeepalivedSendsThem", "TestLimitsOfTheFormatSurviveBothWays"}},

	// What is received.
	{"V-20", "TTL or hop limit is 255 (5.1.1.3, 5.1.2.3)", []string{"refused/a MASTER under a rain", "ipv6/an IPv6 MASTER under a rain", "unicast/peers behind a router need a lower TTL"}},
	{"V-21", "the version is ours (7.1)", []string{"refused/a MASTER under a rain", "refused/version 3 refuses interval 0", "ipv6/an IPv6 MASTER under a rain"}},
	{"V-22", "the type is 1 (7.1)", []string{"refused/a MASTER under a rain", "TestPacketsThatAreNoAdvertsAreRefused"}},
	{"V-23", "the packet is complete (7.1)", []string{"TestEveryTruncationIsRefusedForItsLength", "refused/version 3 refuses interval 0"}},
	{"V-24", "what follows the addresses is ignored", []string{"TestBytesBehindAnAdvertAreIgnored", "refused/a trailer, reserved bits"}},
	{"V-25", "the checksum is right (7.1)", []string{"TestEveryFlippedBitIsRefused", "refused/a MASTER under a rain"}},
	{"V-26", "the VRID is ours (7.1)", []string{"refused/another virtual router on the same network"}},
	{"V-27", "an address count of 0 is ignored (5.2.5, erratum 8299)", []string{"refused/a MASTER under a rain", "TestPacketsThatAreNoAdvertsAreRefused"}},
	{"V-28", "an interval of 0 is ignored (erratum 8301)", []string{"refused/version 3 refuses interval 0", "ipv6/an IPv6 MASTER under a rain"}},
	{"V-29", "IPv6: the first address is link-local (erratum 8300): told, not refused", []string{"ipv6/a first address that is not link-local"}},
	{"V-30", "the reserved bits are ignored (5.2.6)", []string{"TestReservedBitsAreNoPartOfTheInterval", "refused/a trailer, reserved bits"}},
	{"V-31", "an owner takes part in the election and tells of a second one (erratum 8298)", []string{"master/an owner gives way to a second owner", "master/the owner stays against a lower address"}},
	{"V-32", "version 3: another interval is told, not refused (7.1)", []string{"backup/version 3 learns the interval"}},
	{"V-33", "version 2: another interval is refused (RFC 3768 7.1)", []string{"refused/a BACKUP does not take refused adverts for life signs"}},
	{"V-34", "version 3: another list of addresses is told, not refused (7.1)", []string{"mismatch/overlapping addresses are accepted in version 3", "mismatch/disjoint addresses are accepted in version 3"}},
	{"V-35", "version 2: a list without one address of ours is refused (RFC 3768 7.1)", []string{"mismatch/disjoint addresses are ignored in version 2", "mismatch/overlapping addresses are accepted in version 2"}},
	{"V-36", "the destination is the group", []string{"refused/a MASTER under a rain", "ipv6/an IPv6 MASTER under a rain"}},
	{"V-37", "own packets do not count", []string{"refused/a MASTER under a rain", "unicast/a unicast MASTER refuses"}},
	{"V-38", "the source can be a router's", []string{"refused/a MASTER under a rain", "refused/a virtual address as source is the owner's right"}},
	{"V-39", "fragments are refused", []string{"refused/a MASTER under a rain"}},
	{"V-40", "what is refused has no effect at all", []string{"refused/a MASTER under a rain", "TestAMillionBadAdvertsChangeNothing", "TestNoPacketBreaksTheMachine"}},

	// Checksums.
	{"V-45", "version 2: the message with the authentication (RFC 3768 5.3.8)", []string{"TestAdvertsLookAsKeepalivedSendsThem"}},
	{"V-46", "IPv6: with the pseudo-header of RFC 8200 (5.2.8)", []string{"TestAdvertsLookAsKeepalivedSendsThem", "TestAnAdvertOfAnotherSenderOrForAnotherReceiverIsRefused"}},
	{"V-47", "version 3 over IPv4: one of two forms", []string{"TestAdvertsLookAsKeepalivedSendsThem"}},
	{"V-48", "both forms are accepted and told apart", []string{"TestAdvertsOfKeepalivedAreUnderstood", "refused/a trailer, reserved bits", "unicast/the checksum of keepalived 1.3.6", "reload/the form of the checksum is the configured one"}},
	{"V-49", "what is wrong in both forms is refused", []string{"FuzzParse", "TestEveryFlippedBitIsRefused"}},

	// Timers.
	{"V-50", "version 2: the skew is a share of a second (RFC 3768 6.1)", []string{"start/version 2 skew is a share of a second", "start/version 2 with the lowest priority", "start/version 2 with priority 254"}},
	{"V-51", "version 2: the master-down interval is three intervals and the skew (RFC 3768 6.1)", []string{"start/backup takes over after the master-down interval", "absorbed/the patience follows the interval"}},
	{"V-52", "version 3: the skew is a share of the MASTER's interval, not rounded (6.1)", []string{"start/version 3 skew", "backup/version 3 takes the skew after priority 0"}},
	{"V-53", "version 3: the master-down interval is that of the MASTER's interval (6.1)", []string{"backup/version 3 learns the interval"}},
	{"V-54", "the learned interval is the own one at first (6.4.1)", []string{"start/version 3 skew", "failure/a BACKUP without addresses only changes its state"}},
	{"V-55", "the skew follows what was learned (6.4.2)", []string{"backup/version 3 takes the skew after priority 0"}},
	{"V-56", "a MASTER sends with its own interval (6.4.3)", []string{"backup/version 3 learns the interval"}},
	{"V-57", "an advert that is discarded does not start the timer again (6.4.2)", []string{"backup/a lower MASTER is ignored", "backup/the interval of an ignored lower MASTER"}},
	{"V-58", "different intervals are told (5.2.7)", []string{"mismatch/several differences", "mismatch/the difference is taken back"}},
	{"V-59", "times are exact, only the wire is in centiseconds", []string{"start/version 3 skew"}},

	// The machine.
	{"V-61", "the owner starts as MASTER (6.4.1)", []string{"start/the owner is MASTER at once"}},
	{"V-62", "everybody else starts as BACKUP (6.4.1)", []string{"start/backup takes over after the master-down interval"}},
	{"V-63", "a BACKUP stops in silence (6.4.2)", []string{"stop/a BACKUP stops in silence"}},
	{"V-64", "who takes over sends its advert first (6.4.2)", []string{"start/backup takes over after the master-down interval"}},
	{"V-65", "priority 0 leaves the skew (6.4.2)", []string{"backup/priority 0 leaves the skew"}},
	{"V-66", "an advert of an equal or a higher one, or of anybody without preemption, is obeyed (6.4.2)", []string{"backup/the same priority keeps it down", "backup/with preempt off a lower MASTER is obeyed", "backup/with a preempt delay"}},
	{"V-67", "that of a lower one is discarded (6.4.2)", []string{"backup/a lower MASTER is ignored"}},
	{"V-68", "a MASTER that stops says priority 0 first (6.4.3)", []string{"stop/a MASTER hands over", "failure/a MASTER that fails"}},
	{"V-69", "a MASTER sends every interval (6.4.3)", []string{"start/backup takes over after the master-down interval"}},
	{"V-70", "a MASTER answers priority 0 at once (6.4.3)", []string{"master/priority 0 of another is answered at once"}},
	{"V-71", "a MASTER gives way to a higher one, and to a higher address of the same priority (6.4.3)", []string{"master/a higher one is obeyed", "master/of the same priority the higher address wins", "ipv6/of the same priority the higher IPv6 address wins", "master/after stepping down version 3"}},
	{"V-72", "a MASTER answers one that has to give way (6.4.3)", []string{"master/a lower one is answered at once", "master/of the same priority the lower address is answered"}},
	{"V-73", "those answers are bounded", []string{"master/a flood of lower ones"}},
	{"V-75", "without preemption a higher newcomer waits for silence; the owner never does", []string{"backup/with preempt off a lower MASTER is obeyed", "backup/the owner takes over even with preempt off"}},
	{"V-76", "our own priority and address from outside: told, nothing else", []string{"master/an advert with our priority and our address"}},
	{"V-77", "a new configuration changes no state", []string{"reload/a MASTER sends its new priority", "reload/a MASTER adds and announces", "reload/an unchanged configuration"}},
	{"V-78", "an interface that is down: priority 0 if possible, out of the election; up: from the beginning", []string{"failure/a MASTER that fails", "failure/an instance can begin with a failure"}},
	{"V-79", "what others do wrong: equal priorities ignored, takeover at once after priority 0 or from a lower one, adverts without addresses", []string{"backup/the same priority keeps it down", "backup/priority 0 leaves the skew", "backup/a lower MASTER is ignored", "TestPacketsThatAreNoAdvertsAreRefused"}},
	{"V-81", "gratuitous ARP as often as keepalived", []string{"announce/after a takeover from silence", "announce/every count and delay"}},

	// Versions and authentication.
	{"V-110", "one version an instance", []string{"refused/version 3 refuses interval 0", "refused/a MASTER under a rain"}},
	{"V-120", "the simple password of RFC 2338", []string{"refused/a MASTER under a rain", "TestAdvertsLookAsKeepalivedSendsThem"}},
	{"V-121", "another type of authentication is refused; without one the bytes for it are ignored", []string{"refused/a MASTER under a rain", "refused/version 2 without authentication"}},
	{"V-124", "keepalived's own trailer is ignored", []string{"TestBytesBehindAnAdvertAreIgnored"}},

	// Beyond the RFCs.
	{"V-130", "a MASTER that stood still steps back before it sends", []string{"late/a MASTER that slept too long", "late/a MASTER that slept does not assert itself", "TestWhoStoodStillIsNoSecondMaster"}},
	{"V-131", "a BACKUP that stood still looks again before it takes over", []string{"late/a BACKUP that slept reads the adverts", "late/a BACKUP that slept through the silence hears", "TestWhoStoodStillIsNoSecondMaster"}},
	{"V-133", "so does one whose box stood still", []string{"late/a BACKUP that slept through the silence listens once more"}},
	{"V-135", "two MASTERs are told", []string{"split/a MASTER that hears another one", "split/a split that lasts"}},
	{"V-136", "no sequence of events breaks the machine", []string{"TestNoPacketBreaksTheMachine", "TestWholeLANEndsWithOneMaster", "FuzzParse", "FuzzParseIPv6"}},

	// keepalived's order of checks: what it drops and what it accepts.
	{"keepalived receive 1, 6", "authentication", []string{"refused/a MASTER under a rain"}},
	{"keepalived receive 2", "length", []string{"TestEveryTruncationIsRefusedForItsLength"}},
	{"keepalived receive 3", "TTL", []string{"refused/a MASTER under a rain"}},
	{"keepalived receive 4, 8", "version and type", []string{"refused/a MASTER under a rain"}},
	{"keepalived receive 7, 10", "interval: version 2 drops, version 3 obeys", []string{"refused/a BACKUP does not take refused adverts", "backup/version 3 learns the interval"}},
	{"keepalived receive 11", "checksum", []string{"refused/a MASTER under a rain"}},
	{"keepalived receive 12", "multicast in multicast mode, unicast in unicast mode", []string{"unicast/a unicast MASTER refuses", "unicast/a multicast router refuses unicast"}},
	{"keepalived receive 13", "an owner that hears others", []string{"master/an owner gives way to a second owner"}},
	{"keepalived receive 14", "other addresses", []string{"mismatch/the order of the addresses", "mismatch/overlapping addresses", "mismatch/disjoint addresses"}},
	{"keepalived receive 15", "unicast peers and their TTL", []string{"unicast/a unicast MASTER refuses", "unicast/peers behind a router"}},
	{"keepalived receive, INIT and FAULT", "adverts are ignored", []string{"start/nothing happens before the start", "failure/a MASTER that fails"}},

	// keepalived's timers and states.
	{"keepalived timers", "down_timer_adverts", []string{"absorbed/the patience follows the interval", "late/the number of adverts"}},
	{"keepalived states start", "BACKUP first, whatever was configured", []string{"start/backup takes over"}},
	{"keepalived states expiry", "advert, addresses, gratuitous ARP", []string{"start/backup takes over"}},
	{"keepalived states BACKUP", "equal or higher, nopreempt, preempt_delay", []string{"backup/the same priority", "backup/with preempt off", "backup/with a preempt delay"}},
	{"keepalived states BACKUP, lower", "ignored, so preemption takes up to a master-down interval", []string{"backup/a lower MASTER is ignored"}},
	{"keepalived states priority 0", "BACKUP: skew; MASTER: answer", []string{"backup/priority 0 leaves the skew", "master/priority 0 of another"}},
	{"keepalived states MASTER, higher", "BACKUP", []string{"master/a higher one is obeyed"}},
	{"keepalived states MASTER, lower", "advert and gratuitous ARP, for the whole sync group", []string{"master/a lower one is answered", "master/after a healed split", "group/a lower MASTER heard by one"}},
	{"keepalived states own address", "told only", []string{"master/an advert with our priority and our address"}},
	{"keepalived states failure", "priority 0, FAULT", []string{"failure/a MASTER that fails", "hold/a MASTER that is held"}},
	{"keepalived states stop", "priority 0, then the addresses go", []string{"stop/a MASTER hands over"}},
	{"keepalived states sync group", "one in FAULT: all; one BACKUP: all; MASTER: all at once", []string{"group/a failure of one", "group/one that is preempted", "group/members become MASTER together"}},
	{"keepalived equal priorities", "who was first stays, does not take the place back after a restart", []string{"backup/the same priority keeps it down", "master/of two that take over at once"}},
	{"keepalived announcing", "5 at once, 5 more 5s later, repeat, delay, refresh, lower priority", []string{"announce/after a takeover from silence", "announce/every count and delay", "announce/second bursts", "announce/a reload begins"}},
}

// elsewhere are the rules of the checklist that this package can't prove, with who does.
var elsewhere = map[string]string{
	"V-01": "pkg/ha: the IP header", "V-02": "pkg/ha: the IP header", "V-03": "pkg/ha: the source address", "V-04": "pkg/ha: the source address",
	"V-05": "pkg/ha: the virtual MAC", "V-07": "pkg/config", "V-10": "pkg/config", "V-15": "pkg/ha: the IP header", "V-16": "pkg/config",
	"V-41": "pkg/ha: counters and log", "V-60": "pkg/config",
	"V-74":  "test/e2e: a BACKUP is silent",
	"V-111": "not offered: two versions at once", "V-112": "not offered", "V-113": "not offered", "V-114": "not offered", "V-115": "pkg/config", "V-116": "pkg/config",
	"V-132": "pkg/ha: the clock", "V-134": "pkg/supervisor", "V-137": "pkg/ha: sockets",
}

// TestEveryRuleHasItsProof fails when a rule of the checklist has no scenario or test, or names one that is not there.
func TestEveryRuleHasItsProof(t *testing.T) {
	proofs := map[string]bool{}
	for name := range scenarios(t) {
		proofs[name] = true
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(content), -1) {
			proofs[match[1]] = true
		}
	}
	proven := map[string]bool{}
	for _, r := range rules {
		proven[r.id] = len(r.by) > 0
		for _, want := range r.by {
			found := false
			for proof := range proofs {
				found = found || proof == want || strings.Contains(want, "/") && strings.HasPrefix(proof, want)
			}
			if !found {
				t.Errorf("%s (%s): there is no scenario and no test %q", r.id, r.rule, want)
			}
		}
	}
	for _, part := range [][2]int{{1, 16}, {20, 41}, {45, 49}, {50, 60}, {61, 79}, {110, 116}, {130, 137}} {
		for n := part[0]; n <= part[1]; n++ {
			id := fmt.Sprintf("V-%02d", n)
			if !proven[id] && elsewhere[id] == "" {
				t.Errorf("%s has neither a proof here nor a place elsewhere", id)
			}
		}
	}
}
