// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/config"
)

// Names that don't resolve are warned of where they stand, each looked up once.
func TestUnresolved(t *testing.T) {
	c, err := config.Load("f", []byte(`pools:
  p:
    backends:
      - good.example:1
      - 10.0.0.1:1
      - bad.example:1
      - {address: "slow.example:1", weight: 2}
      - twin.example:1
      - empty.example:1
  q: {backends: ["bad.example:2", "twin.example", "other.example:1", "unix:/run/x"]}
listeners: [{name: a, listen: ":80", pool: p}, {name: b, listen: ":81", pool: q}]
`))
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	look := func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		asked.Add(1)
		switch host {
		case "bad.example":
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		case "slow.example":
			return nil, context.DeadlineExceeded
		case "other.example":
			return nil, errors.New("broken")
		case "twin.example":
			return []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("10.0.0.9")}, nil
		case "empty.example":
			return nil, nil
		}
		return []netip.Addr{netip.MustParseAddr("10.0.0.2")}, nil
	}
	var got []string
	for _, w := range unresolved(t.Context(), c, look) {
		got = append(got, w.String())
	}
	want := []string{
		"f:6:9: warning: bad.example doesn't resolve now: no such host; its backend is down until it does",
		"f:7:19: warning: slow.example doesn't resolve now: no answer in time; its backend is down until it does",
		"f:8:9: warning: twin.example resolves to 10.0.0.1, which is 10.0.0.1:1 of this pool, too",
		"f:9:9: warning: empty.example resolves to no address; its backend is down until it does",
		"f:10:18: warning: bad.example doesn't resolve now: no such host; its backend is down until it does",
		"f:10:51: warning: other.example doesn't resolve now: broken; its backend is down until it does",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := asked.Load(); n != 6 {
		t.Errorf("%d look-ups of 6 names", n)
	}
}

// TestCheckResolve: a warning is no failure.
func TestCheckResolve(t *testing.T) {
	cfg := file(t, strings.Replace(valid, "127.0.0.1:19537", "no-such-host.invalid:1", 1))
	code, out, errs := sluice(t, "check", "--resolve", "-c", cfg)
	if code != 0 || out != cfg+": configuration is valid\n" || !strings.HasPrefix(errs, cfg+":5:16: warning: no-such-host.invalid doesn't resolve now: ") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
	if code, out, errs = sluice(t, "check", "-c", cfg); code != 0 || errs != "" {
		t.Errorf("without --resolve: exit %d, stdout %q, stderr %q", code, out, errs)
	}
	odd := file(t, valid+"    deny: [all]\n")
	code, out, errs = sluice(t, "check", "-c", odd)
	if code != 0 || out != odd+": configuration is valid\n" || errs != odd+":6:11: warning: deny refuses everybody, and allow is empty\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}
