// SPDX-License-Identifier: Apache-2.0

package proxy

// phase is what happens to the bytes of one direction of a session in the map.
type phase uint8

const (
	// redirecting: the kernel moves them.
	redirecting phase = iota
	// draining: the program passes them to userspace, which has them wait until all
	// that was redirected before has entered the target's socket.
	draining
	// passing: userspace forwards what is passed.
	passing
	// unmapped: the source isn't in the verdict's map; it is read as in relay.
	unmapped
	// The same behind the source's FIN, which waits for all bytes before it.
	lastRedirecting
	lastDraining
	lastPassing
	lastUnmapped
	// over: the FIN has been passed on.
	over
)

// change is what happens to a direction.
type change uint8

const (
	bytesPassed  change = iota // the program has begun to pass bytes to userspace
	bytesDrained               // what was redirected before them has entered the target
	handedBack                 // userspace has forwarded all, and lets the kernel go on
	leftOut                    // the source could not enter the verdict's map any more
	finCame                    // the source's FIN has arrived
	finPassed                  // it has been passed on
)

// after is the phase that a change leads to. A change that doesn't apply, as one
// that is noticed twice, leaves the phase as it is.
func (p phase) after(c change) phase {
	switch {
	case c == bytesPassed && p == redirecting:
		return draining
	case c == bytesPassed && p == lastRedirecting:
		return lastDraining
	case c == bytesDrained && p == draining:
		return passing
	case c == bytesDrained && p == lastDraining:
		return lastPassing
	case c == handedBack && p == passing:
		return redirecting
	case c == leftOut && p == redirecting:
		return unmapped
	case c == finCame && p <= unmapped:
		return p + lastRedirecting
	case c == finPassed && p != lastDraining && p.ending():
		return over
	}
	return p
}

// ending says whether the source's FIN waits to be passed on.
func (p phase) ending() bool { return p >= lastRedirecting && p <= lastUnmapped }

// takenOver says whether userspace forwards what the program passes.
func (p phase) takenOver() bool {
	return p == draining || p == passing || p == lastDraining || p == lastPassing
}

// outside says whether the source isn't in the verdict's map.
func (p phase) outside() bool { return p == unmapped || p == lastUnmapped }

// ours says whether userspace reads the source.
func (p phase) ours() bool { return p.takenOver() || p.outside() }
