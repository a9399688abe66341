package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rows are what a live keepalived (2.2.7 and 2.4.3) does on the wire, and what the protocols ask for beyond the pure
// machine, each with its proofs: tests of this package (with a row of theirs behind a slash), of pkg/ha ("ha:"), and
// scenarios of pkg/vrrp ("vrrp:FILE/HEADING", as far as it is written). The rules of the machine are in
// pkg/vrrp/rules_test.go.
var rows = []struct {
	what string
	by   []string
}{
	// Sending.
	{"IP header: group, protocol 112, TTL 255, CS6, no options, no DF", []string{"TestAdvertsAreByTheBook", "vrrp:unicast/unicast routers elect"}},
	{"version 2: seconds, 8 bytes of authentication, checksum over them", []string{"TestAdvertsAreByTheBook"}},
	{"version 3: centiseconds, checksum with a pseudo-header, or without as configured", []string{"TestAdvertsAreByTheBook"}},
	{"the source stays, and is never virtual", []string{"ha:TestSourceFollowsTheInterfaceAndIsNeverVirtual"}},

	// Receiving, in keepalived's order.
	{"1 AH", []string{"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/AH there"}},
	{"2 length, Ethernet padding", []string{"TestBadAdvertsDoNothingToAMASTER/V-23", "TestOddAdvertsAreObeyed/V-24 Ethernet padding"}},
	{"3 TTL", []string{"TestBadAdvertsDoNothingToAMASTER/V-20 TTL 254", "TestBadAdvertsDoNothingToABACKUP"}},
	{"4 version: two MASTERs", []string{"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/version 3 here, 2 there", "TestDifferencesBesideFRREndAsToldAndAreNamed"}},
	{"5 HMAC trailer", []string{"TestOddAdvertsAreObeyed/as keepalived 2.4 with HMAC"}},
	{"6 authentication and password: two MASTERs", []string{"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/another password", "TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/no password here"}},
	{"7 version 2 interval: two MASTERs", []string{"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/another interval", "TestBadAdvertsDoNothingToAMASTER/V-33"}},
	{"8 type", []string{"TestBadAdvertsDoNothingToAMASTER/V-22 type 0"}},
	{"9 IP total length", []string{"TestBadAdvertsDoNothingToAMASTER/IP length longer"}},
	{"10 version 3 interval: obeyed, told", []string{"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/another interval", "TestOddAdvertsAreObeyed/V-32"}},
	{"11 checksum", []string{"TestBadAdvertsDoNothingToAMASTER/V-25", "TestOddAdvertsAreObeyed/V-47"}},
	{"12 multicast and unicast", []string{"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/unicast there", "vrrp:unicast/a unicast MASTER refuses"}},
	{"13 an owner that hears others", []string{"vrrp:master/an owner gives way"}},
	{"14 addresses: count and set, the order does not matter", []string{"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/one more address there", "TestDifferencesBesideFRREndAsToldAndAreNamed", "vrrp:mismatch/the order of the addresses"}},
	{"14 somebody else's cluster", []string{"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/another list of addresses"}},
	{"15 unicast peers and their TTL", []string{"ha:TestUnicastPeersElectAndAnybodyElseIsRefused", "ha:TestAPeerBehindARouterIsHeardWithALowerTTL", "TestPeersFailOverBothWays/v3 unicast"}},
	{"ignored in INIT and FAULT", []string{"vrrp:start/nothing happens before the start"}},
	{"unknown VRIDs are silent", []string{"ha:TestAdvertsOfOtherVirtualRoutersDontReachUs"}},
	{"each error is logged once", []string{"ha:TestForgedSendersFillNeitherMemoryNorLog"}},

	// Timers.
	{"master-down is three intervals and the skew", []string{"TestBackupTakesOverAsTheFormulasSay/V-50 V-51 V-53"}},
	{"the skew of version 2 is of a second, that of version 3 of the MASTER's interval", []string{"TestBackupTakesOverAsTheFormulasSay/V-55"}},
	{"an accepted advert starts the timer again", []string{"TestBackupTakesOverAsTheFormulasSay/V-66"}},
	{"priority 0 leaves the skew", []string{"TestBackupTakesOverAsTheFormulasSay/V-52 V-65", "TestPeersFailOverBothWays"}},
	{"priority 255 is at once", []string{"TestStopGivesEveryRouterUp/V-61"}},
	{"10 ms", []string{"TestAdvertsAreByTheBook/10 * time.Millisecond"}},

	// States.
	{"start: BACKUP, own leftovers removed", []string{"ha:TestLeftoverAddressesAreRemovedAndForeignOnesNever", "vrrp:start/backup takes over"}},
	{"BACKUP, timer: advert, addresses, gratuitous ARP", []string{"TestBackupTakesOverAsTheFormulasSay/V-64 V-80 V-81 V-87"}},
	{"BACKUP, equal or higher, or no preemption: stays", []string{"TestBackupTakesOverAsTheFormulasSay/V-66 V-75", "TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/preempt is off here"}},
	{"BACKUP, lower: ignored", []string{"TestBackupTakesOverAsTheFormulasSay/V-57 V-67"}},
	{"MASTER, priority 0: advert at once", []string{"TestMasterAnswersAndYieldsAsItMust/V-70"}},
	{"MASTER, higher, or equal and higher address: BACKUP", []string{"TestMasterAnswersAndYieldsAsItMust/V-71", "TestBothMastersBecomeOneWhenTheNetworkIsWholeAgain"}},
	{"MASTER, lower: advert and gratuitous ARP", []string{"TestMasterAnswersAndYieldsAsItMust/V-72", "TestBothMastersBecomeOneWhenTheNetworkIsWholeAgain", "vrrp:group/a lower MASTER heard by one"}},
	{"MASTER, own address and priority: told", []string{"vrrp:master/an advert with our priority and our address"}},
	{"two owners", []string{"vrrp:master/an owner gives way to a second owner"}},
	{"MASTER, interface down or script failed: FAULT; address removed: put back", []string{"ha:TestLostCarrierIsAFaultUntilItIsBack", "ha:TestWhatSomebodyElseRemovesIsPutBackAndCounted"}},
	{"stop: priority 0 first, then the addresses", []string{"TestStopGivesEveryRouterUp/V-68", "TestPeersFailOverBothWays"}},
	{"the same priority: who was first stays, and does not take it back", []string{"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed/the same priority"}},

	// Telling the neighbours.
	{"gratuitous ARP: a broadcast request, five for each address, rounds outside", []string{"TestBackupTakesOverAsTheFormulasSay/V-64 V-80 V-81 V-87"}},
	{"neighbour advertisement: source is the address, override, link-layer option", []string{"TestBackupTakesOverAsTheFormulasSay/V-64 V-80 V-81 V-87", "ha:TestNeighbourAdvertisementOnTheWire"}},
	{"again after five seconds, refresh, after a lower MASTER", []string{"vrrp:announce/after a takeover from silence", "vrrp:announce/every count and delay", "vrrp:master/after a healed split"}},
	{"paced, and adverts never wait for them", []string{"ha:TestAnnouncementsArePacedAndNothingWaitsForThem", "TestEveryVRIDOfAnInterfaceFailsOverTogether"}},

	// Addresses.
	{"/32 or /128, IPv6 at once and never as a source", []string{"ha:TestIPv6AddressesAnswerAtOnceAndAreNoSource"}},
	{"what another program left is never touched", []string{"TestAddressOfTheAdministratorIsLeftAlone"}},
	{"one answer, by the MASTER alone, with the virtual MAC if there is one", []string{"TestMasterAloneAnswersForTheAddresses", "ha:TestVirtualMACAnswersAloneAndOnlyWhileMaster"}},
	{"the virtual MAC beside keepalived's and FRR's", []string{"TestPeersFailOverBothWays/v3 with virtual MAC", "TestPeersFailOverBothWays/IPv6 with virtual MAC"}},
	{"accept", []string{"ha:TestWithAcceptFalseOnlyServicesAndNeighbourDiscoveryReachTheBox"}},

	// Robustness.
	{"V-39 fragments", []string{"TestBadAdvertsDoNothingToAMASTER/V-39 first fragment"}},
	{"V-40 a discarded advert does nothing", []string{"TestOnlyValidAdvertsChangeAState", "TestBadAdvertsDoNothingToABACKUP"}},
	{"V-41 each reason is counted, and what passes the filter is limited", []string{"TestBadAdvertsDoNothingToAMASTER", "TestFilterKeepsAFloodFromTheElection"}},
	{"V-73 answers are bounded", []string{"TestFloodOfLowerAdvertsIsAnsweredAtABoundedRate"}},
	{"V-130 V-131 a process that stood still", []string{"ha:TestAMasterThatOversleptStepsBackBeforeItSendsAnything", "vrrp:late/"}},
	{"V-135 two MASTERs are told", []string{"TestSecondMasterIsNamedAndCounted"}},
	{"V-137 one socket for all VRIDs", []string{"TestEveryVRIDOfAnInterfaceFailsOverTogether"}},
}

func TestEveryRowNamesAProofThatExists(t *testing.T) {
	sources := map[string]string{}
	read := func(pattern string) string {
		if _, ok := sources[pattern]; !ok {
			files, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			var all strings.Builder
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasSuffix(file, "rows_test.go") {
					all.Write(text)
				}
			}
			sources[pattern] = all.String()
		}
		return sources[pattern]
	}
	for _, r := range rows {
		for _, by := range r.by {
			ok := false
			if name, found := strings.CutPrefix(by, "ha:"); found {
				ok = strings.Contains(read("../../pkg/ha/*_test.go"), "func "+name+"(")
			} else if name, found := strings.CutPrefix(by, "vrrp:"); found {
				file, heading, _ := strings.Cut(name, "/")
				ok = strings.Contains(read("../../pkg/vrrp/testdata/"+file+".txt"), "\nscenario "+heading)
			} else {
				name, row, _ := strings.Cut(by, "/")
				ok = strings.Contains(read("*_test.go"), "func "+name+"(") && strings.Contains(read("*_test.go"), row) && scenarios[name] != nil
			}
			if !ok {
				t.Errorf("%s: there is no %s", r.what, by)
			}
		}
	}
}
