// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// block is a header block as it is being read. A connection's table of names and
// values goes on from block to block, so each is decoded to its end, also one
// that nobody wants.
type block struct {
	dec    *hpack.Decoder
	fields []hpack.HeaderField
	size   uint32 // of the list, as HTTP/2 counts it
	wire   int    // bytes so far
	frames int
	bad    error // the list is malformed
	large  bool  // it has more than maxHeaderList
}

func newBlock() *block {
	b := &block{}
	b.dec = hpack.NewDecoder(4096, b.emit)
	b.dec.SetMaxStringLength(maxHeaderBlock)
	return b
}

func (b *block) begin() {
	b.fields, b.size, b.wire, b.frames, b.bad, b.large = nil, 0, 0, 0, nil, false
}

func (b *block) emit(f hpack.HeaderField) {
	if b.large || b.bad != nil {
		return
	}
	if b.size += f.Size(); b.size > maxHeaderList {
		b.large, b.fields = true, nil
		return
	}
	if b.bad = checkField(f); b.bad == nil {
		if b.fields == nil {
			b.fields = make([]hpack.HeaderField, 0, 12)
		}
		b.fields = append(b.fields, f)
	}
}

// add decodes a fragment. An error ends the connection.
func (b *block) add(fragment []byte) error {
	b.frames++
	b.wire += len(fragment)
	if b.wire > maxHeaderBlock || b.frames > maxContinuations {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	if _, err := b.dec.Write(fragment); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	return nil
}

// end ends the block, and gives its fields to the caller.
func (b *block) end() (fields []hpack.HeaderField, err error) {
	if b.dec.Close() != nil {
		return nil, http2.ConnectionError(http2.ErrCodeCompression)
	}
	fields, b.fields = b.fields, nil
	return fields, nil
}

var (
	errField  = errors.New("a field that HTTP/2 doesn't allow")
	errPseudo = errors.New("pseudo-header fields that HTTP/2 doesn't allow")
)

// checkField refuses what makes a message malformed (RFC 9113, 8.2).
func checkField(f hpack.HeaderField) error {
	name := strings.TrimPrefix(f.Name, ":")
	if name == "" || !httpguts.ValidHeaderFieldName(name) || strings.ToLower(name) != name || !httpguts.ValidHeaderFieldValue(f.Value) {
		return errField
	}
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return errField
	case "te":
		if f.Value != "trailers" {
			return errField
		}
	}
	return nil
}

// request is what is looked at in a request's fields.
type request struct {
	path    string
	grpc    bool
	timeout time.Duration // 0: none
}

// readRequest reads a request's fields. An error: they are malformed.
func readRequest(fields []hpack.HeaderField) (r request, err error) {
	var method, scheme, authority int
	for i, f := range fields {
		if !strings.HasPrefix(f.Name, ":") {
			switch f.Name {
			case "content-type":
				r.grpc = strings.HasPrefix(f.Value, "application/grpc")
			case "grpc-timeout":
				r.timeout = parseTimeout(f.Value)
			}
			continue
		}
		if i > 0 && !strings.HasPrefix(fields[i-1].Name, ":") {
			return r, errPseudo
		}
		switch f.Name {
		case ":method":
			method++
			if f.Value == "CONNECT" {
				return r, errPseudo // no tunnels
			}
		case ":scheme":
			scheme++
		case ":authority":
			authority++
		case ":path":
			if r.path != "" || f.Value == "" {
				return r, errPseudo
			}
			r.path = f.Value
		default:
			return r, errPseudo
		}
	}
	if method != 1 || scheme != 1 || authority > 1 || r.path == "" {
		return r, errPseudo
	}
	return r, nil
}

// parseTimeout reads grpc-timeout: up to eight digits and a unit. 0: it is none.
func parseTimeout(s string) time.Duration {
	if len(s) < 2 || len(s) > 9 {
		return 0
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil || n > uint64(1<<62/unit) {
		return 0
	}
	return time.Duration(n) * unit
}

// checkResponse refuses fields that no response has: the first ones have :status
// alone before the rest. interim: 1xx, others follow.
func checkResponse(fields []hpack.HeaderField) (interim bool, err error) {
	if len(fields) == 0 || fields[0].Name != ":status" || len(fields[0].Value) != 3 {
		return false, errPseudo
	}
	if noPseudo(fields[1:]) != nil {
		return false, errPseudo
	}
	return fields[0].Value[0] == '1', nil
}

// noPseudo refuses pseudo-header fields: trailers have none.
func noPseudo(fields []hpack.HeaderField) error {
	for _, f := range fields {
		if strings.HasPrefix(f.Name, ":") {
			return errPseudo
		}
	}
	return nil
}

// statusOf is the gRPC status code in these trailers; -1: there is none.
func statusOf(fields []hpack.HeaderField) int {
	for _, f := range fields {
		if f.Name == "grpc-status" {
			if n, err := strconv.ParseUint(f.Value, 10, 31); err == nil {
				return int(n)
			}
		}
	}
	return -1
}

// encodeMessage is a grpc-message: percent-encoded but for printable ASCII.
func encodeMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			const hex = "0123456789ABCDEF"
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
