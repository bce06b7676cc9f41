// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets are added while bytes arrive on both: each byte gets across, in
// order, and none finds its record or its target missing, because those come
// before the verdict.
func TestAddUnderFire(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		s := must1(t, func() (*Splice, error) { return NewSplice(SpliceOptions{MaxFlows: 400}) })
		defer s.Close()
		for range 300 {
			_, err := runStep(context.Background(), s, step{run: func(r *rig) (string, error) {
				r.deadline = time.Now().Add(20 * time.Second)
				return "", underFire(r)
			}})
			must(t, 0, err)
		}
		c := s.Counts()
		if c.PassedNoTarget+c.PassedNoFlow+c.RedirectFailed+c.EventLost != 0 || c.Redirected == 0 {
			t.Errorf("counts %+v", c)
		}
	})
}

func underFire(r *rig) error {
	data := pattern(20000)
	fire := func(fd int) <-chan error {
		done := make(chan error, 1)
		go func() {
			for at := 0; at < len(data); at += 100 {
				if err := r.send(fd, data[at:at+100]); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		return done
	}
	up, down := fire(r.client), fire(r.server)
	for range 20 {
		_, _ = unix.GetsockoptInt(r.front, unix.SOL_SOCKET, unix.SO_ERROR) // lets some of them in
	}
	if err := r.add(); err != nil {
		return err
	}
	for _, to := range []int{r.server, r.client} {
		got, err := r.receive(to, len(data))
		if err != nil {
			return err
		}
		if err := same(got, data); err != nil {
			return err
		}
	}
	if err := <-up; err != nil {
		return err
	}
	return <-down
}
