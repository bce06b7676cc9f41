// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// hold opens connections up to the count of each step, tells it, and waits for
// a line before the next. Hold moves a byte each way on each, Messages times;
// Stall never reads.
func (r *run) hold(lines *bufio.Scanner, enc *json.Encoder) (Result, error) {
	buf := make([]byte, 16)
	res := Result{Errors: map[string]int{}}
	var fds []int
	for _, step := range r.spec.Steps {
		for len(fds) < step {
			fd, err := r.dialNext(true)
			if err != nil {
				return res, fmt.Errorf("client: connection %d of %d: %w", len(fds)+1, step, err)
			}
			fds = append(fds, fd)
			if r.spec.Kind == Stall {
				time.Sleep(r.spec.Gap)
				continue
			}
			for range max(r.spec.Messages, 1) {
				if err := exchange(fd, buf); err != nil {
					return res, fmt.Errorf("client: session %d: %w", len(fds), err)
				}
			}
		}
		if err := enc.Encode(Event{Event: "step", Count: len(fds)}); err != nil {
			return res, err
		}
		if !lines.Scan() {
			break
		}
	}
	// A connection that has ended is readable without a byte.
	for _, fd := range fds {
		if n, errno := recv(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT); r.spec.Kind == Hold && errno != unix.EAGAIN && n < 1 {
			res.Lost++
		}
		closeFD(fd)
	}
	res.Done = uint64(len(fds))
	return res, nil
}

// exchange moves a byte to the other side and back.
func exchange(fd int, buf []byte) error {
	if _, errno := send(fd, buf[:1], 0); errno != 0 {
		return errno
	}
	if n, errno := recv(fd, buf, 0); errno != 0 || n != 1 {
		return fmt.Errorf("no answer: %d bytes, %v", n, errno)
	}
	return nil
}
