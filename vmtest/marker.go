// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"io"
)

// copyUntil copies r to w until the marker comes, which isn't copied, and says
// whether it came. The marker is how the guest says that all output of the
// program is in; output before it is passed on at once, but for a tail that may
// be the marker's beginning.
func copyUntil(w io.Writer, r io.Reader, marker []byte) (bool, error) {
	var held []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		held = append(held, buf[:n]...)
		if i := bytes.Index(held, marker); i >= 0 {
			_, err := w.Write(held[:i])
			return true, err
		}
		keep := partial(held, marker)
		if err != nil {
			keep = 0
		}
		if _, werr := w.Write(held[:len(held)-keep]); werr != nil {
			return false, werr
		}
		held = append(held[:0], held[len(held)-keep:]...)
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// partial is the length of the longest end of b that marker begins with.
func partial(b, marker []byte) int {
	for n := min(len(b), len(marker)-1); n > 0; n-- {
		if bytes.HasPrefix(marker, b[len(b)-n:]) {
			return n
		}
	}
	return 0
}
