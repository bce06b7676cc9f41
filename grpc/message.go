// SPDX-License-Identifier: Apache-2.0

package grpc

import "encoding/binary"

// messages follows the messages in one direction of a call: each has a byte that
// says whether it is compressed, four of its length, and its bytes.
type messages struct {
	head  [5]byte
	got   int
	left  uint32
	count int // messages that have begun
}

// add looks at the next bytes and returns the length of the largest message that
// begins in them.
func (m *messages) add(b []byte) (largest uint32) {
	for len(b) > 0 {
		if m.left > 0 {
			n := min(len(b), int(m.left))
			m.left -= uint32(n)
			b = b[n:]
			continue
		}
		if m.got == 0 {
			m.count++
		}
		n := copy(m.head[m.got:], b)
		b = b[n:]
		if m.got += n; m.got == len(m.head) {
			m.got, m.left = 0, binary.BigEndian.Uint32(m.head[1:])
			largest = max(largest, m.left)
		}
	}
	return largest
}
