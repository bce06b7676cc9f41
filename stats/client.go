// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"sluice/config"
)

const (
	fetchLimit = 10 * time.Second
	maxAnswer  = 512 << 20 // bytes
)

// Fetch reads a path ("/stats", "/flows?limit=10") from the statistics endpoint
// at addr. The error names the address, also when nobody is there.
func Fetch(addr config.Address, path string) ([]byte, error) {
	network, where := "tcp", addr.AddrPort()
	target := where.String()
	switch {
	case addr.Path != "":
		network, target = "unix", addr.Path
	case addr.Name != "":
		target = addr.String()
	case addr.Any || where.Addr() == netip.IPv4Unspecified():
		// Bound to all addresses: this host's own is one of them.
		target = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port).String()
	case where.Addr() == netip.IPv6Unspecified():
		target = netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port).String()
	}
	client := http.Client{
		Timeout: fetchLimit,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, target)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Get("http://sluice" + path)
	if err != nil {
		return nil, fmt.Errorf("nobody answers at %s; is sluice running, with its statistics there? (%w)", addr, cause(err))
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("the answer of %s broke off: %w", addr, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s to %s: %s", addr, answer.Status, path, firstLine(body))
	}
	return body, nil
}

// cause drops the URL, as its host is made up.
func cause(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return err
}

func firstLine(body []byte) string {
	line, _, _ := strings.Cut(string(body[:min(len(body), 200)]), "\n")
	return printable(line)
}
