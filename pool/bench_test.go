// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"fmt"
	"testing"

	"sluice/config"
)

func BenchmarkPick(b *testing.B) {
	for _, balance := range []config.Balance{config.RoundRobin, config.LeastConn, config.RandomTwo, config.Hash} {
		for _, withBoard := range []bool{false, true} {
			if withBoard && balance != config.RoundRobin {
				continue
			}
			for _, n := range []int{2, 16, 256, 1024} {
				b.Run(fmt.Sprintf("%s/board=%v/%d", balance, withBoard, n), func(b *testing.B) {
					var board Board
					if withBoard {
						board = &fakeBoard{}
					}
					p, _ := newPool(b, board, Options{Balance: balance}, equal(n))
					b.ReportAllocs()
					i := 0
					for b.Loop() {
						i++
						s := State{Key: client(i)}
						p.Release(p.Pick(&s, t0), t0)
					}
				})
			}
		}
	}
}

func BenchmarkApply1024(b *testing.B) {
	for _, balance := range []config.Balance{config.RoundRobin, config.Hash} {
		b.Run(string(balance), func(b *testing.B) {
			p, _ := newPool(b, &fakeBoard{}, Options{Balance: balance}, equal(1024))
			even, odd := equal(1024), equal(1023)
			i := 0
			for b.Loop() {
				if i++; i%2 == 0 {
					p.Apply(Options{Balance: balance}, even, t0)
				} else {
					p.Apply(Options{Balance: balance}, odd, t0)
				}
			}
		})
	}
}
