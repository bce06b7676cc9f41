// SPDX-License-Identifier: Apache-2.0

package report

import "sluice/bench/result"

func Docs(r *result.Run, dir string) error { return nil }
