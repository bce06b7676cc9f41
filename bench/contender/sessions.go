// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// endLimit is how long sessions may take to end once their clients are gone: a
// line is in the file within 200 ms of its session's end.
const endLimit = 2 * time.Second

// Session is what a line of the access log says of one.
type Session struct {
	Datapath string `json:"datapath"` // the best that it had
	Sent     uint64 `json:"sent"`     // payload to the client
	Received uint64 `json:"received"` // payload from it
	Moved    uint64 `json:"moved"`    // of both, what didn't pass the process
}

// Early is the payload that had passed the process before the session was handed over.
func (s Session) Early() uint64 { return s.Sent + s.Received - min(s.Moved, s.Sent+s.Received) }

// HandedOver reports whether the session got the datapath that its contender is named for.
func (in *Instance) HandedOver(s Session) bool { return s.Datapath == in.datapath }

// Mark is a place in an instance's log, and what its process had counted by then.
type Mark struct {
	at        int64
	pid       int
	fallbacks map[string]uint64
}

// Mark tells where the log ends now. It is an error if the instance has none.
func (in *Instance) Mark() (m Mark, err error) {
	if !in.Log {
		return m, fmt.Errorf("%s has no access log", in.Name)
	}
	st, err1 := os.Stat(in.logPath())
	s, err2 := in.stats()
	if err := errors.Join(err1, err2); err != nil {
		return m, err
	}
	return Mark{at: st.Size(), pid: s.PID, fallbacks: s.fallbacks()}, nil
}

// Since are the sessions that have ended since the mark, once none is left or
// endLimit is over, how many are left then, and how many had to stay on a lower
// datapath, by reason. The instance may have been restarted meanwhile.
func (in *Instance) Since(ctx context.Context, m Mark) (list []Session, left int, reasons map[string]uint64, err error) {
	var s sluiceStats
	for deadline := time.Now().Add(endLimit); ; {
		if s, err = in.stats(); err != nil {
			return nil, 0, nil, err
		}
		if left = s.left(); left == 0 || time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, 0, nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	if n := s.AccessLog.Dropped; n > 0 {
		return nil, 0, nil, fmt.Errorf("%s dropped %d lines of its log", in.Name, n)
	}
	reasons = s.fallbacks()
	if s.PID == m.pid {
		for reason, n := range m.fallbacks {
			reasons[reason] -= n
		}
	}
	maps.DeleteFunc(reasons, func(_ string, n uint64) bool { return n == 0 })
	list, err = readSessions(in.logPath(), m.at)
	return list, left, reasons, err
}

func (in *Instance) logPath() string { return filepath.Join(in.Dir, logFile) }

func (s sluiceStats) fallbacks() map[string]uint64 {
	sum := map[string]uint64{}
	for _, l := range s.Listeners {
		for reason, n := range l.Fallbacks {
			sum[reason] += n
		}
	}
	return sum
}

// left is how many sessions have no line yet.
func (s sluiceStats) left() int {
	left := -int64(s.AccessLog.Lines + s.AccessLog.Dropped)
	for _, l := range s.Listeners {
		left += int64(l.Total)
	}
	return int(max(left, 0))
}

// readSessions reads the lines of a log that begin at that place or later. One
// that isn't whole yet is left out.
func readSessions(path string, at int64) ([]Session, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	var list []Session
	for in := bufio.NewReader(f); ; {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		var s Session
		if err == nil {
			err = json.Unmarshal(line, &s)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: line %q: %w", path, line, err)
		}
		list = append(list, s)
	}
}
