// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"sluice/config"
)

// formatter turns records into lines. It isn't safe for use by several
// goroutines at once.
type formatter struct {
	parts []part
	json  bool
	line  line
	clock clock
}

// part is either literal text or a variable.
type part struct {
	text string
	variable
}

// newFormatter compiles an access-log format.
func newFormatter(format string) (*formatter, error) {
	pieces, err := config.ParseFormat(format)
	if err != nil {
		return nil, fmt.Errorf("access log format: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("access log format: host name: %w", err)
	}
	f := &formatter{json: format == config.FormatJSON}
	// nginx writes the host name in lower case.
	f.line = line{clock: &f.clock, pid: os.Getpid(), hostname: strings.ToLower(host)}
	known := variables()
	for i, p := range pieces {
		if p.Variable == "" {
			if strings.ContainsAny(p.Text, "\n\r") {
				return nil, fmt.Errorf("access log format: a line break in %s, must be one line", strconv.Quote(p.Text))
			}
			f.parts = append(f.parts, part{text: p.Text})
			continue
		}
		v, ok := known[p.Variable]
		if !ok {
			return nil, fmt.Errorf("access log format: unknown variable $%s", p.Variable)
		}
		if f.json {
			separator := ","
			if i == 0 {
				separator = "{"
			}
			f.parts = append(f.parts, part{text: separator + strconv.Quote(p.Variable) + ":"})
		}
		f.parts = append(f.parts, part{variable: v})
	}
	if f.json {
		f.parts = append(f.parts, part{text: "}"})
	}
	return f, nil
}

// append appends the line of s, its end of line included, stamped with the time
// that the clock was set to. It keeps nothing of s.
func (f *formatter) append(dst []byte, s *Record) []byte {
	f.line.s = s
	for i := range f.parts {
		p := &f.parts[i]
		switch {
		case p.put == nil:
			dst = append(dst, p.text...)
		case f.json:
			dst = f.appendJSON(dst, p)
		default:
			dst = f.appendText(dst, p)
		}
	}
	f.line.s = nil
	return append(dst, '\n')
}

func (f *formatter) appendText(dst []byte, p *part) []byte {
	from := len(dst)
	dst, ok := p.put(dst, &f.line)
	if !ok {
		return append(dst[:from], '-')
	}
	if p.safe {
		return dst
	}
	return escapeText(dst, from)
}

// appendJSON appends a value. One that is missing is null if it were a number,
// else "-" as in the other formats.
func (f *formatter) appendJSON(dst []byte, p *part) []byte {
	from := len(dst)
	if p.number {
		dst, ok := p.put(dst, &f.line)
		if !ok || len(dst) == from {
			return append(dst[:from], "null"...)
		}
		// JSON knows no leading zeros, which nginx's $status has.
		for len(dst) > from+1 && dst[from] == '0' && dst[from+1] != '.' {
			dst = append(dst[:from], dst[from+1:]...)
		}
		return dst
	}
	dst = append(dst, '"')
	dst, ok := p.put(dst, &f.line)
	switch {
	case !ok:
		dst = append(dst[:from+1], '-')
	case !p.safe:
		dst = escapeJSON(dst, from+1)
	}
	return append(dst, '"')
}
