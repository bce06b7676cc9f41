// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"
	"unsafe"
)

// What an idle session costs us is its record, its part in the map, two registrations
// and a timer; the collector may let as much again lie around. The whole has
// to stay within 2 KiB (bench's memory workload measures the process).
func TestSizeOfAnIdleSession(t *testing.T) {
	one := unsafe.Sizeof(pair{}) + unsafe.Sizeof(splicer{}) + 2*unsafe.Sizeof(registration{}) + unsafe.Sizeof(timerEntry{})
	t.Logf("session %d, in the map %d more, with registrations and timer %d bytes", unsafe.Sizeof(pair{}), unsafe.Sizeof(splicer{}), one)
	if one > 1024 {
		t.Errorf("%d bytes, and twice that with garbage", one)
	}
}
