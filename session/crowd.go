// SPDX-License-Identifier: Apache-2.0

package session

// gate is a limit that keeps a session out.
type gate uint8

const (
	noGate     gate = iota
	atLimits        // of the listener, or of the client's address
	atBackends      // max_conns of backends
)

const (
	// mostLooks bounds how often a session is looked at while others leave and
	// again others take their places: it isn't a queue.
	mostLooks = 16
	// mostPatient is the same while ends that have arrived are being seen to.
	mostPatient = 250
)

// crowd is what a session that a limit keeps out remembers of its last look.
type crowd struct {
	left   uint64 // how many had gone by then
	at     gate
	looks  uint8
	ending bool
}

// Again is Choose for a session that was Crowded, once its carrier has seen to
// every end that had arrived by then, on whichever carrier. ending: some that
// have arrived take longer.
func (s *Session) Again(c Carrier, ending bool, now int64) Verdict {
	s.crowd.looks++
	s.crowd.ending = ending
	return s.Choose(c, now)
}

// Looks is how often the session has been looked at in vain.
func (s *Session) Looks() int { return int(s.crowd.looks) }

// refused says whether a look in vain is the last word: ends that had arrived
// before it have been seen to, and still nobody has gone since the look before.
// Then those who are in now were in all the time, and none of them had ended.
// left is how many had gone by this look.
func (s *Session) refused(at gate, left uint64) bool {
	c := &s.crowd
	last := c.looks > 0 && c.at == at && c.left == left && !c.ending ||
		c.looks >= mostLooks && !c.ending || c.looks >= mostPatient
	c.at, c.left = at, left
	return last
}
