// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// conformance runs h2spec against addr and returns the cases that fail, and how
// many there are.
func conformance(t *testing.T, addr string) (failed []string, all int) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Config{Host: host, Path: "/grpc.testing.TestService/EmptyCall", Timeout: 500 * time.Millisecond, MaxHeaderLen: 4000}
	if c.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	var walk func(g *spec.TestGroup)
	walk = func(g *spec.TestGroup) {
		for i, one := range g.Tests {
			all++
			if one.Result != nil && one.Result.Failed {
				failed = append(failed, g.ID()+"/"+strconv.Itoa(i+1)+" "+one.Desc)
			}
		}
		for _, sub := range g.Groups {
			walk(sub)
		}
	}
	for _, g := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		g.Test(c)
		walk(g)
	}
	return failed, all
}

// A listener keeps to HTTP/2 no worse than a plain grpc-go server.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	a := newServer(t, "a")
	direct, all := conformance(t, a.addr)
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	through, _ := conformance(t, r.front.Addr().String())
	t.Logf("of %d cases %d fail at the server itself, %d at the listener", all, len(direct), len(through))
	for _, one := range through {
		if !slices.Contains(direct, one) {
			t.Logf("at the listener alone: %s", one)
		}
	}
	if len(through) > len(direct) {
		t.Errorf("more fail at the listener: %q", through)
	}
}
