// SPDX-License-Identifier: Apache-2.0

package mono

import (
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestClockIsTheKernels(t *testing.T) {
	c := New()
	var before, after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before); err != nil {
		t.Fatal(err)
	}
	now := c.Now()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &after); err != nil {
		t.Fatal(err)
	}
	const slack = int64(time.Millisecond) // between the two looks of New
	if now < before.Nano()-slack || now > after.Nano()+slack {
		t.Errorf("Now is %d, the kernel says %d to %d", now, before.Nano(), after.Nano())
	}
}

func TestWallTurnsDifferencesOver(t *testing.T) {
	c := New()
	a, b := c.Wall(c.Now()), c.Wall(c.Now()+int64(time.Hour))
	if d := b.Sub(a); d < time.Hour || d > time.Hour+time.Minute {
		t.Errorf("an hour later is %s later", d)
	}
	if d := time.Since(a); d < 0 || d > time.Minute {
		t.Errorf("now is %s ago", d)
	}
}

func TestOfIsTheInverse(t *testing.T) {
	c := New()
	for _, want := range []int64{0, 1, c.Now(), c.Now() + int64(time.Hour), -int64(time.Hour)} {
		if got := c.Of(c.Wall(want)); got != want {
			t.Errorf("%d came back as %d", want, got)
		}
	}
	if got := c.Of(time.Now().Add(math.MaxInt64)); got != math.MaxInt64 {
		t.Errorf("the end of time is %d", got)
	}
}
