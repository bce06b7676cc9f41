// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"
	"unsafe"
)

// What an idle session costs us is its record, its part in the map, two slots
// and a timer; the collector may let as much again lie around. The whole has
// to stay within 2 KiB (bench's memory workload measures the process).
func TestSizeOfAnIdleSession(t *testing.T) {
	one := unsafe.Sizeof(session{}) + unsafe.Sizeof(kernelPart{}) + 2*unsafe.Sizeof(slot{}) + unsafe.Sizeof(timerEntry{})
	t.Logf("session %d, in the map %d more, with slots and timer %d bytes", unsafe.Sizeof(session{}), unsafe.Sizeof(kernelPart{}), one)
	if one > 1024 {
		t.Errorf("%d bytes, and twice that with garbage", one)
	}
}
