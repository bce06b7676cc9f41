// SPDX-License-Identifier: Apache-2.0

package loader

import "context"

// testMark is small, so that a few writes go over it.
const testMark = 64 << 10

type step struct {
	name string
	run  func(r *rig) (detail string, err error)
}

var steps = []step{}

type rig struct{}

func runStep(ctx context.Context, s *Splice, st step) (string, error) { return st.run(&rig{}) }
