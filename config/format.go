// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The access-log formats that have a name.
const (
	FormatProxy = "proxy"
	FormatJSON  = "json"
)

// proxyTemplate is what FormatProxy stands for: nginx's example for a stream
// proxy, to the byte.
const proxyTemplate = `$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received ` +
	`$session_time "$upstream_addr" "$upstream_bytes_sent" "$upstream_bytes_received" "$upstream_connect_time"`

// Piece is a part of an access-log line: exactly one of its fields is set.
type Piece struct {
	Text     string // literal text
	Variable string // a known variable's name, without the dollar
}

// nginxVariables are nginx's own, with its meaning.
func nginxVariables() []string {
	return []string{
		"remote_addr", "remote_port", "server_addr", "server_port", "connection", "msec",
		"time_local", "time_iso8601", "protocol", "status", "bytes_sent", "bytes_received",
		"session_time", "upstream_addr", "upstream_bytes_sent", "upstream_bytes_received",
		"upstream_connect_time", "upstream_first_byte_time", "upstream_session_time",
		"pid", "hostname", "proxy_protocol_addr", "proxy_protocol_port",
	}
}

// ownVariables are those that nginx hasn't.
func ownVariables() []string {
	return []string{
		"listener", "pool", "datapath", "end_reason", "client_rtt", "upstream_rtt",
		"upstream_retrans", "bytes_spliced", "grpc_method", "grpc_status",
	}
}

// Variables returns the names of all access-log variables, without the dollar:
// nginx's first, then sluice's own.
func Variables() []string { return append(nginxVariables(), ownVariables()...) }

// KnownVariable tells whether an access-log format may use the variable; name
// is without the dollar.
func KnownVariable(name string) bool { return slices.Contains(Variables(), name) }

// ParseFormat splits an access-log format into its pieces. FormatProxy stands
// for its template. FormatJSON gives its keys, in order: variables only, no
// text; the caller writes the object. Anything else is a template of $name and
// ${name}, where, as in nginx, a dollar can't be escaped. The error says what
// is wrong and what would be right.
func ParseFormat(format string) ([]Piece, error) {
	switch format {
	case FormatProxy:
		return parseTemplate(proxyTemplate)
	case FormatJSON:
		return jsonPieces()
	}
	return parseTemplate(format)
}

// jsonPieces are the variables of the proxy format, then ours.
func jsonPieces() ([]Piece, error) {
	all, err := parseTemplate(proxyTemplate)
	if err != nil {
		return nil, err
	}
	pieces := slices.DeleteFunc(all, func(p Piece) bool { return p.Variable == "" })
	for _, name := range ownVariables() {
		pieces = append(pieces, Piece{Variable: name})
	}
	return pieces, nil
}

func parseTemplate(s string) ([]Piece, error) {
	var pieces []Piece
	var unknown []error
	for s != "" {
		at := strings.IndexByte(s, '$')
		if at < 0 {
			pieces = append(pieces, Piece{Text: s})
			break
		}
		if at > 0 {
			pieces = append(pieces, Piece{Text: s[:at]})
		}
		name, rest, err := variable(s[at+1:])
		if err != nil {
			return nil, err
		}
		if !KnownVariable(name) {
			unknown = append(unknown, fmt.Errorf("unknown variable $%s%s", clip(name), hint(name, Variables(), "$")))
		}
		pieces = append(pieces, Piece{Variable: name})
		s = rest
	}
	return pieces, errors.Join(unknown...)
}

// variable reads the name at the start of s, which follows a dollar.
func variable(s string) (name, rest string, err error) {
	inner, braced := strings.CutPrefix(s, "{")
	n := 0
	for n < len(inner) && isNameByte(inner[n]) {
		n++
	}
	name, rest = inner[:n], inner[n:]
	if braced {
		var closed bool
		if rest, closed = strings.CutPrefix(rest, "}"); !closed {
			return "", "", fmt.Errorf("no closing brace after %s, must be ${name}", quote("${"+name))
		}
	}
	if name == "" {
		return "", "", errors.New("a dollar without a variable's name, must be $name or ${name}")
	}
	return name, rest, nil
}

func isNameByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
