package ipvs

import (
	"errors"
	"fmt"
	"log/slog"
)

// Cleanup deletes the services that stateFile names, without a Plane: for a director that forwards by XDP now, or an
// operator. Where the file names none of this boot, IPVS isn't even asked for, so it need not exist.
func Cleanup(stateFile string, log *slog.Logger) error {
	return cleanup(stateFile, log, dial)
}

func cleanup(stateFile string, log *slog.Logger, dial func() (kernel, error)) error {
	r := record{path: stateFile}
	recorded, err := r.load()
	if err != nil {
		return fmt.Errorf("clean up ipvs: %w", err)
	}
	if len(recorded) == 0 {
		return r.save(nil)
	}
	k, err := dial()
	if err != nil {
		return fmt.Errorf("clean up ipvs: %w", err)
	}
	p, err := open(k, stateFile, log)
	if err != nil {
		return errors.Join(fmt.Errorf("clean up ipvs: %w", err), k.Close())
	}
	return errors.Join(p.Remove(), p.Close())
}
