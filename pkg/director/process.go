package director

import (
	"os"

	"github.com/xdirector/xdirector/pkg/ha"
	"github.com/xdirector/xdirector/pkg/status"
)

// local is the election in this process.
type local struct{ *ha.Runtime }

// Maps is not for such an election: it takes part without the plane's help.
func (local) Maps(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// electionPicture is the picture of the process that runs the election: who started it knows its number.
func (d *Director) electionPicture() status.Election {
	e := status.Election{Denied: d.report.Denied}
	if p, ok := d.ha.(interface {
		Process() (pid int, restarts uint64)
	}); ok {
		e.PID, e.Restarts = p.Process()
	}
	e.FastPath, e.FastPathReason = d.fastPath()
	if counts := d.report.Lateness.Counts; counts != nil {
		e.LatenessCounts, e.LatenessSum = counts, d.report.Lateness.Sum.Seconds()
		for _, b := range ha.LatenessBounds() {
			e.LatenessBounds = append(e.LatenessBounds, b.Seconds())
		}
	}
	return e
}
