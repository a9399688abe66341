package ipvs

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
)

// Cleanup deletes the services that an earlier run made, as stateFile has them, for a director that now forwards
// otherwise. Without the file there are none, and IPVS is not even asked for.
func Cleanup(stateFile string, log *slog.Logger) error {
	if _, err := os.Stat(stateFile); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	p, err := Open(stateFile, log)
	if err != nil {
		return err
	}
	return errors.Join(p.Remove(), p.Close())
}
