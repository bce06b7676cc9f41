// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sluice/loader"
)

// examineLog doesn't create the log: it looks whether that could be done.
func examineLog(path string) loader.Finding {
	f := loader.Finding{Name: "access log " + path, OK: true, Why: "can be written"}
	if path == "-" {
		f.Why = "is stdout"
		return f
	}
	const flags = os.O_APPEND | unix.O_NONBLOCK | unix.O_NOCTTY
	file, err := os.OpenFile(path, os.O_WRONLY|flags, 0)
	if errors.Is(err, unix.ENXIO) {
		// A FIFO without a reader: sluice opens it as one itself, if it may.
		if both, errBoth := os.OpenFile(path, os.O_RDWR|flags, 0); errBoth == nil {
			file, err = both, nil
		}
	}
	switch {
	case err == nil:
		file.Close()
		return f
	case errors.Is(err, fs.ErrNotExist):
		dir := filepath.Dir(path)
		if err = unix.Access(dir, unix.W_OK|unix.X_OK); err == nil {
			f.Why = "can be created"
			return f
		}
		err = fmt.Errorf("%s: %w", dir, err)
		f.Fix = "create the directory " + dir + " for the user that runs sluice"
	case errors.Is(err, unix.ENXIO):
		f.Fix = "name a file, or a pipe that has a reader or that the user who runs sluice may read"
	default:
		f.Fix = "give the user that runs sluice the right to write it"
	}
	f.OK, f.Why = false, err.Error()
	return f
}
