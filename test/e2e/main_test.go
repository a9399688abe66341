// Package e2e tests the whole xdirector in the lab: two directors, real servers, a client, and everything that can
// happen to them. A scenario is written once and runs on every plane that this machine can have: the XDP planes on
// the host, IPVS in the virtual machine (XDIRECTOR_VM=1). XDIRECTOR_BIN names the binary; without it, it is built.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// The planes that a scenario can run on.
const (
	native   = "xdp-native"
	generic  = "xdp-generic"
	ipvs     = "ipvs"
	election = "none" // the scenario has no services: it runs once, on the host
)

var (
	everyPlane = []string{native, generic, ipvs}
	hostXDP    = []string{native, generic}
	noPlane    = []string{election}
)

// scenarios names every scenario and its planes. A run of all tests fails if one of these is missing from it.
var scenarios = map[string][]string{
	"TestRoundRobinServesRealServersInTurn":                     everyPlane,
	"TestWeightedRoundRobinFollowsTheWeights":                   everyPlane,
	"TestServerWithTheFewestActiveConnectionsGetsTheNextOnes":   everyPlane,
	"TestFullRealServersRefuseAndDeniedClientsHearNothing":      everyPlane,
	"TestUDPClientsStayWithTheirRealServer":                     everyPlane,
	"TestErrorsReachTheRealServerOfTheirConnection":             everyPlane,
	"TestPersistentClientStaysUntilItsRealServerFails":          everyPlane,
	"TestMinimalConfigurationForwards":                          everyPlane,
	"TestFailedRealServerLeavesAndComesBack":                    everyPlane,
	"TestRealServerWithoutMACGetsNoConnection":                  everyPlane,
	"TestCleanStopAndReturnLoseNoRequest":                       everyPlane,
	"TestKilledAgentForwardsOnAndIsAdopted":                     everyPlane,
	"TestDownloadGoesOnByteForByte":                             hostXDP,
	"TestOpenConnectionOutlivesTheAgent":                        everyPlane,
	"TestOpenConnectionsOutliveAPlannedHandover":                hostXDP,
	"TestLostDirectorIsReplacedInTime":                          everyPlane,
	"TestPulledCableEndsWithOneMaster":                          everyPlane,
	"TestInterfaceSetDownAndUpForwardsAgain":                    everyPlane,
	"TestReloadTouchesOnlyWhatChanged":                          everyPlane,
	"TestMetricsTellWhatHappened":                               everyPlane,
	"TestFullDiskIsToldOnceAndStopsNothing":                     {native},
	"TestBlockedLogStopsNothing":                                {native},
	"TestStartWithoutServicesRemovesWhatAKilledAgentForwarded":  everyPlane,
	"TestDrainedRealServerKeepsItsConnections":                  everyPlane,
	"TestRealServerThatComesBackGetsItsShareStepByStep":         everyPlane,
	"TestClientsAndRealServersInVLANsAreServed":                 everyPlane,
	"TestSorryServerServesWithoutAQuorum":                       everyPlane,
	"TestFloodedFrameIsNotForwarded":                            hostXDP,
	"TestFilterKeepsAFloodFromTheElection":                      hostXDP,
	"TestReloadToOtherRealServersRefusesNobody":                 everyPlane,
	"TestDirectorsBehindEachOtherCirculateNothing":              everyPlane,
	"TestFailedScriptHandsOverWithoutLosingARequest":            {native},
	"TestTooFewRealServersHandOver":                             {native},
	"TestFailoverAndReturnLoseNoRequest":                        {native},
	"TestMaintenanceLosesNoRequestAndSurvivesARestart":          {native},
	"TestTrackedFilesAndProcessesDecideWhoIsMaster":             noPlane,
	"TestFailoverWithoutAnotherDirectorChangesNothing":          noPlane,
	"TestFailoverOfASyncGroup":                                  noPlane,
	"TestInterfaceWithoutNativeXDPGetsGeneric":                  noPlane,
	"TestWithoutBPFCapabilityIPVSForwards":                      {ipvs},
	"TestJoinedDirectorsEndWithOneMaster":                       noPlane,
	"TestPeersFailOverBothWays":                                 noPlane,
	"TestDifferencesBesideKeepalivedEndAsToldAndAreNamed":       noPlane,
	"TestBothMastersBecomeOneWhenTheNetworkIsWholeAgain":        noPlane,
	"TestDifferencesBesideFRREndAsToldAndAreNamed":              noPlane,
	"TestSecondMasterIsNamedAndCounted":                         noPlane,
	"TestStopGivesEveryRouterUp":                                noPlane,
	"TestFloodOfLowerAdvertsIsAnsweredAtABoundedRate":           noPlane,
	"TestMasterAnswersAndYieldsAsItMust":                        noPlane,
	"TestAdvertsAreByTheBook":                                   noPlane,
	"TestBackupTakesOverAsTheFormulasSay":                       noPlane,
	"TestOddAdvertsAreObeyed":                                   noPlane,
	"TestBadAdvertsDoNothingToABACKUP":                          noPlane,
	"TestBadAdvertsDoNothingToAMASTER":                          noPlane,
	"TestAddressOfTheAdministratorIsLeftAlone":                  noPlane,
	"TestInterfaceThatIsMissingAtTheStartIsWaitedFor":           {native, election},
	"TestBadAdvertsEndInTheDriverButOneOfASecond":               hostXDP,
	"TestAbsorbedAdvertsEndInATakeover":                         hostXDP,
	"TestCountersOfElectionsGoOnWhenTheAgentRestarts":           noPlane,
	"TestTakenMetricsPortIsTriedAgain":                          noPlane,
	"TestLeftOverControlSocketIsRemovedAndALivingOneIsKept":     noPlane,
	"TestServiceManagerIsToldTheStates":                         noPlane,
	"TestKilledAgentAloneIsMissedByNobody":                      everyPlane,
	"TestKilledElectionGoesOnAsMaster":                          {native},
	"TestStoppedElectionIsHandedOver":                           everyPlane,
	"TestPauseOfTheElectionMovesItsFastInstanceAlone":           noPlane,
	"TestHungElectionOfABackupIsReplaced":                       noPlane,
	"TestKilledSupervisorComesBack":                             noPlane,
	"TestUpgradeIsSeenByNobody":                                 everyPlane,
	"TestBrokenUpgradeIsRefused":                                noPlane,
	"TestHungAgentIsReplaced":                                   noPlane,
	"TestAgentThatIsStartedAgainReadsTheFileAsItIs":             noPlane,
	"TestStopEndsInGoodOrderWhateverHasDied":                    noPlane,
	"TestCleanupRemovesWhatAKilledDirectorLeft":                 everyPlane,
	"TestMasterAloneAnswersForTheAddresses":                     noPlane,
	"TestEveryVRIDOfAnInterfaceFailsOverTogether":               noPlane,
	"TestTheElectionOfAThousandInstancesIsSmall":                noPlane,
	"TestOnlyValidAdvertsChangeAState":                          noPlane,
	"TestVirtualMACServesOnBothDirectorsAndAcceptsNothingElse":  everyPlane,
	"TestReloadThatRemovesAMasterWithAVirtualMACLosesNoRequest": {native},
	"TestKeepalivedWithIPVSAsThePeerLosesNoRequest":             {native, ipvs},
	"TestIPv6ServiceServesInTurnAndLosesNoRequest":              everyPlane,
	"TestExplanationsAndCapturesSayWhatHappens":                 everyPlane,
	"TestReloadOnTrialIsTakenBackIfItCostsSomething":            {native},
	"TestReloadEvery100MillisecondsCostsNoRequest":              {native},
	"TestNATServiceIsOnIPVSBesideXDP":                           {native},
	"TestConvertedPairBehavesAsTheKeepalivedPair":               noPlane,
	"TestConvertedPairServesAsTheKeepalivedPair":                {ipvs},
	"TestOperatorsPagesSayWhatHappens":                          {native},
}

// inVM says that this is the virtual machine with IPVS.
func inVM() bool { return os.Getenv("XDIRECTOR_VM") != "" }

// inVMAlone are the scenarios that need IPVS or VLANs on any plane: all of their planes run in the virtual machine.
var inVMAlone = []string{
	"TestKeepalivedWithIPVSAsThePeerLosesNoRequest", "TestNATServiceIsOnIPVSBesideXDP", "TestClientsAndRealServersInVLANsAreServed",
}

// planesHere are the planes of a scenario that this machine runs. One XDP scenario runs on the old kernel of the
// virtual machine too.
func planesHere(name string) []string {
	var here []string
	for _, plane := range scenarios[name] {
		old := plane == native && name == "TestRoundRobinServesRealServersInTurn"
		vm := plane == ipvs || slices.Contains(inVMAlone, name)
		if inVM() == vm || inVM() && old {
			here = append(here, plane)
		}
	}
	return here
}

// record is what has run, for the comparison at the end.
type record struct {
	mu  sync.Mutex
	ran []string
}

var runs record

func (r *record) add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ran = append(r.ran, name)
}

// missing lists the runs that should have been and were not.
func (r *record) missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var missing []string
	for name := range scenarios {
		for _, plane := range planesHere(name) {
			if run := name + "/plane=" + plane; !slices.Contains(r.ran, run) {
				missing = append(missing, run)
			}
		}
	}
	slices.Sort(missing)
	return missing
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	if os.Geteuid() == 0 && os.Getenv("XDIRECTOR_BIN") == "" {
		dir, err := os.MkdirTemp("", "xdirector-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary := filepath.Join(dir, "xdirector")
		if out, err := exec.Command("go", "build", "-ldflags", "-X main.version=v0-e2e-test", "-o", binary, "../../cmd/xdirector").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build xdirector: %v\n%s", err, out)
			return 1
		}
		if err := os.Setenv("XDIRECTOR_BIN", binary); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code := m.Run()
	all := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	if os.Geteuid() == 0 && all {
		for _, name := range runs.missing() {
			fmt.Fprintf(os.Stderr, "FAIL: scenario %s did not run\n", name)
			code = 1
		}
	}
	return code
}

// onPlanes runs a scenario on each of its planes that this machine has.
func onPlanes(t *testing.T, scenario func(t *testing.T, plane string)) {
	t.Helper()
	if _, ok := scenarios[t.Name()]; !ok {
		t.Fatalf("%s is not in the table of scenarios", t.Name())
	}
	if os.Geteuid() != 0 && os.Getenv("LAB") == "" {
		t.Skip("not root")
	}
	for _, plane := range planesHere(t.Name()) {
		t.Run("plane="+plane, func(t *testing.T) {
			if !inVM() {
				t.Parallel() // each plane has a lab of its own
			}
			runs.add(t.Name())
			scenario(t, plane)
		})
	}
}
