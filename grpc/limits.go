// SPDX-License-Identifier: Apache-2.0

package grpc

import "time"

// What a peer may have of us. docs/grpc.md says the same.
const (
	// maxCalls is how many calls a client's connection may have at a time; more
	// are refused (REFUSED_STREAM), and whoever reads SETTINGS knows.
	maxCalls = 16384
	// maxFrame is the largest frame that we take and that we send.
	maxFrame = 16384
	// firstWindow is the window of a stream at first, HTTP/2's own default. A
	// stream that drains gets up to maxWindow.
	firstWindow = 65535
	maxWindow   = 1 << 20
	// connWindow is the window of a connection. It is given back as bytes
	// arrive, so that a stream whose bytes wait here holds up itself alone.
	connWindow = 16 << 20
	// maxHeaderList bounds a header list as HTTP/2 counts it; a larger one fails
	// its stream alone.
	maxHeaderList = 256 << 10
	// maxHeaderBlock and maxContinuations bound what one takes on the wire; beyond
	// it the connection ends.
	maxHeaderBlock   = 1 << 20
	maxContinuations = 256
	// maxKept is how much of a request is kept to be sent again.
	maxKept = 1 << 20
	// maxHeld is what bytes that wait here may take together (Options.MaxHeld).
	// Beyond it a call of a connection with more than a 32nd of it ends with the
	// next byte, and beyond twice as much any call does; a quarter of it may be
	// requests that are kept to be sent again; and from a quarter on no stream's
	// window grows.
	maxHeld = 256 << 20
	// maxBroadcast bounds the request and the answer of a broadcast call, which
	// are both held whole.
	maxBroadcast = 64 << 20
	// maxUnsent bounds the control frames that wait for a peer that doesn't read.
	maxUnsent = 1 << 20
)

// A connection's credit is spent by frames that do nothing for a call and by
// streams that end before their time; calls that are answered and bytes earn some,
// and time does.
const (
	creditMost   = 100000
	creditSecond = 1000
	creditCall   = 5   // earned by a call that was answered
	creditBytes  = 512 // of DATA that earn one
	costReset    = 5   // of a stream that a peer resets, or that we have to
)

const (
	// roundTrip is how long a client has to answer the ping between our two GOAWAYs.
	roundTrip = time.Second
	// lingerTime is how long a connection that we have ended may take to see it.
	lingerTime = time.Second
	// crowdPause is how long a call that a backend's max_conns keeps out waits
	// before it looks again: ends that have arrived elsewhere are handled by then.
	crowdPause = 2 * time.Millisecond
	// sweepMost is how often all connections are looked at, and sweepLeast how
	// often at most.
	sweepMost  = time.Second
	sweepLeast = 50 * time.Millisecond
	// loneTime is how long connections to backends outlive the last client's.
	loneTime = 500 * time.Millisecond
	// spareTime is how long a connection beyond those that the file wants lives idle.
	spareTime = 10 * time.Second
	// resetTime is how long the last words to clients may take when all is reset.
	resetTime = 500 * time.Millisecond
)

const (
	// readSize is how much one read takes. The buffer is held only while there
	// is something in it.
	readSize = 64 << 10
	// batchSize is about how many bytes of DATA one write takes.
	batchSize = 128 << 10
	// copyBelow is what is copied to its frame's header rather than referred to.
	copyBelow = 2 << 10
)
