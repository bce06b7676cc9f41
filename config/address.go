// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// maxUnixPath is sun_path less its final NUL, unix(7).
const maxUnixPath = 107

// String is the address as the file and the logs write it: ip:port,
// [ip6]:port, name:port, unix:/path, and :port for both families; ip, [ip6] or
// name for a backend without a port.
func (a Address) String() string {
	switch {
	case a.Path != "":
		return "unix:" + a.Path
	case a.Any:
		return ":" + strconv.Itoa(int(a.Port))
	case a.Portless() && a.Name != "":
		return a.Name
	case a.Portless() && a.Addr.Is6():
		return "[" + a.Addr.String() + "]"
	case a.Portless():
		return a.Addr.String()
	case a.Name != "":
		return a.Name + ":" + strconv.Itoa(int(a.Port))
	}
	return a.AddrPort().String()
}

// AddrPort is the literal address; meaningless with a Path or a Name.
func (a Address) AddrPort() netip.AddrPort { return netip.AddrPortFrom(a.Addr, a.Port) }

// Portless tells whether it is a backend that is written without a port: it
// gets the port that the client came to.
func (a Address) Portless() bool { return a.Path == "" && a.Port == 0 }

// Wildcard tells whether it stands for all addresses of a family or of both.
func (a Address) Wildcard() bool { return a.Any || a.Addr.IsValid() && a.Addr.IsUnspecified() }

// same is a form in which equal addresses are equal however they are written.
func (a Address) same() Address {
	if a.Path != "" {
		a.Path = path.Clean(a.Path)
	}
	a.Name = strings.ToLower(strings.TrimSuffix(a.Name, "."))
	return a
}

// ParseListen reads an address to listen on: ip:port, [ip6]:port, :port or
// unix:/path. [::]:port and :port are the same: both families.
func ParseListen(s string) (Address, error) {
	const right = "must be ip:port, [ip6]:port, :port or unix:/path"
	a, host, err := parseAddress(s, right, false)
	switch {
	case err != nil || a.Path != "":
		return a, err
	case host == "" || a.Addr == netip.IPv6Unspecified():
		a.Addr, a.Any = netip.IPv6Unspecified(), true
		return a, nil
	case host == "*":
		return a, fmt.Errorf(`"*" is no address, must be :%d for all addresses`, a.Port)
	case !a.Addr.IsValid():
		return a, fmt.Errorf("%s is no IP address, %s", quote(host), right)
	}
	return a, nil
}

const backendForms = "ip:port, [ip6]:port, name:port or unix:/path"

// ParseTarget reads an address to connect to: ip:port, [ip6]:port, name:port
// or unix:/path.
func ParseTarget(s string) (Address, error) { return parseTarget(s, false) }

// ParseBackend reads a backend's address: what ParseTarget reads, or an address
// or a name without a port; none that no server can have.
func ParseBackend(s string) (Address, error) {
	a, err := parseTarget(s, true)
	switch {
	case err != nil:
		return a, err
	case a.Addr.IsValid() && a.Addr.IsUnspecified():
		return a, fmt.Errorf("%s stands for all addresses, must be that of one server", a.Addr)
	case a.Addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, errors.New("the broadcast address, must be a unicast address, as TCP needs it")
	}
	return a, nil
}

func parseTarget(s string, portless bool) (Address, error) {
	const right = "must be " + backendForms
	a, host, err := parseAddress(s, right, portless)
	switch {
	case err != nil || a.Path != "" || a.Addr.IsValid():
		return a, err
	case host == "":
		return a, errors.New("no host before the port, " + right)
	case !isHostName(host):
		return a, fmt.Errorf("%s is neither an IP address nor a host name, %s", quote(host), right)
	}
	a.Name = host
	return a, nil
}

// parseAddress does what all kinds share. Without an error either Path is set,
// or Port unless there may be none, and Addr if the host is a literal address.
func parseAddress(s, right string, portless bool) (a Address, host string, err error) {
	if file, ok := strings.CutPrefix(s, "unix:"); ok {
		a.Path = file
		return a, "", checkUnixPath(file)
	}
	if err := refuseScheme(s); err != nil {
		return a, "", err
	}
	colon := strings.LastIndexByte(s, ':')
	switch {
	case colon >= 0 && !strings.HasSuffix(s, "]"):
		host = s[:colon]
		if a.Port, err = parsePort(s[colon+1:]); err != nil {
			return a, "", err
		}
	case portless:
		host = s
	default:
		return a, "", errors.New("no port, " + right)
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed {
			return a, "", errors.New("no closing bracket, " + right)
		}
	} else if strings.Contains(host, ":") {
		return a, "", errors.New("an IPv6 address without brackets, must be [ip6]:port")
	}
	addr, err := netip.ParseAddr(inner)
	switch {
	case err != nil && bracketed || err == nil && bracketed != addr.Is6():
		return a, "", fmt.Errorf("%s is no IPv6 address, %s", quote(host), right)
	case err != nil:
		return a, host, nil
	case addr.Zone() != "":
		return a, "", errors.New("an IPv6 zone is not supported yet, must be an address without %" + clip(addr.Zone()))
	case addr.IsMulticast():
		return a, "", errors.New("a multicast address, must be a unicast address, as TCP needs it")
	}
	a.Addr = addr.Unmap()
	return a, host, nil
}

// refuseScheme tells protocols that aren't there from addresses that are bad.
func refuseScheme(s string) error {
	lower := strings.ToLower(s)
	for _, name := range []string{"udp", "tls", "ssl"} {
		if strings.HasPrefix(lower, name+":/") || strings.HasSuffix(lower, "/"+name) ||
			strings.HasSuffix(lower, " "+name) || strings.HasPrefix(lower, name+":") && strings.Count(lower, ":") > 1 {
			return fmt.Errorf("%s is not supported yet, must be TCP: an address without %s", strings.ToUpper(name), name)
		}
	}
	if scheme, _, found := strings.Cut(s, "://"); found {
		return fmt.Errorf("an address has no scheme, must be written without %s", quote(scheme+"://"))
	}
	return nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s != strconv.FormatUint(n, 10) {
		return 0, fmt.Errorf("port is %s, must be a number from 1 to 65535", quote(s))
	}
	return uint16(n), nil
}

func checkUnixPath(file string) error {
	switch {
	case !strings.HasPrefix(file, "/"):
		return fmt.Errorf("unix path is %s, must be an absolute path, unix:/path", quote(file))
	case strings.HasSuffix(file, "/"):
		return errors.New("unix path ends with a slash, must be the path of a socket")
	case len(file) > maxUnixPath:
		return fmt.Errorf("unix path has %d bytes, must have %d at most", len(file), maxUnixPath)
	}
	return nil
}

// isHostName accepts what a resolver may: labels of letters, digits, hyphens
// and underscores. A last label of digits is an IPv4 address gone wrong.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if !isNameByte(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}
