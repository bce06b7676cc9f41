// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"net/netip"
	"strconv"
	"time"
)

// line is what a variable's value is made from.
type line struct {
	s        *Record
	clock    *clock
	pid      int
	hostname string
}

// variable is one $name.
type variable struct {
	number bool // a number in JSON
	safe   bool // never has a byte that is to be escaped
	// put appends the value; false means there is none, and nothing appended.
	put func(dst []byte, l *line) ([]byte, bool)
}

func number(put func(dst []byte, l *line) []byte) variable {
	return variable{number: true, safe: true, put: always(put)}
}

func plain(put func(dst []byte, l *line) []byte) variable {
	return variable{safe: true, put: always(put)}
}

func always(put func(dst []byte, l *line) []byte) func([]byte, *line) ([]byte, bool) {
	return func(dst []byte, l *line) ([]byte, bool) { return put(dst, l), true }
}

func maybe(put func(dst []byte, l *line) ([]byte, bool)) variable {
	return variable{number: true, safe: true, put: put}
}

// text is a value that a name in the file or a peer has a hand in; "" is none.
func text(get func(l *line) string) variable {
	return variable{put: func(dst []byte, l *line) ([]byte, bool) {
		s := get(l)
		return append(dst, s...), s != ""
	}}
}

func count(get func(s *Record) uint64) variable {
	return number(func(dst []byte, l *line) []byte { return strconv.AppendUint(dst, get(l.s), 10) })
}

// variables are all $names, without the dollar.
func variables() map[string]variable {
	all := nginxVariables()
	for name, v := range attemptVariables() {
		all[name] = v
	}
	for name, v := range ownVariables() {
		all[name] = v
	}
	return all
}

func nginxVariables() map[string]variable {
	return map[string]variable{
		"remote_addr": {put: func(dst []byte, l *line) ([]byte, bool) { return appendPeer(dst, l.s.Client) }},
		"remote_port": maybe(func(dst []byte, l *line) ([]byte, bool) { return appendPort(dst, l.s.Client) }),
		"server_addr": {put: func(dst []byte, l *line) ([]byte, bool) { return appendPeer(dst, l.s.Server) }},
		"server_port": maybe(func(dst []byte, l *line) ([]byte, bool) { return appendPort(dst, l.s.Server) }),
		"proxy_protocol_addr": {safe: true, put: func(dst []byte, l *line) ([]byte, bool) {
			return appendAddr(dst, l.s.ProxyAddr.Addr())
		}},
		"proxy_protocol_port": maybe(func(dst []byte, l *line) ([]byte, bool) {
			return strconv.AppendUint(dst, uint64(l.s.ProxyAddr.Port()), 10), true
		}).unless(func(l *line) bool { return !l.s.ProxyAddr.Addr().IsValid() }),
		"connection":   count(func(s *Record) uint64 { return s.ID }),
		"time_local":   plain(func(dst []byte, l *line) []byte { return append(dst, l.clock.local...) }),
		"time_iso8601": plain(func(dst []byte, l *line) []byte { return append(dst, l.clock.iso...) }),
		"msec": number(func(dst []byte, l *line) []byte {
			ms := l.clock.now.UnixMilli()
			return appendFraction(strconv.AppendInt(dst, ms/1000, 10), ms%1000, 100)
		}),
		"protocol": plain(func(dst []byte, l *line) []byte {
			if l.s.RPC != nil {
				return append(dst, "GRPC"...)
			}
			return append(dst, "TCP"...)
		}),
		"status": number(func(dst []byte, l *line) []byte {
			for n := 100; n > max(l.s.Status, 1); n /= 10 {
				dst = append(dst, '0')
			}
			return strconv.AppendInt(dst, int64(l.s.Status), 10)
		}),
		"bytes_sent":     count(func(s *Record) uint64 { return s.BytesSent }),
		"bytes_received": count(func(s *Record) uint64 { return s.BytesReceived }),
		"session_time": number(func(dst []byte, l *line) []byte {
			end := l.s.End
			if end.IsZero() {
				end = l.clock.now
			}
			return appendSeconds(dst, end.Sub(l.s.Start))
		}),
		"pid":      number(func(dst []byte, l *line) []byte { return strconv.AppendInt(dst, int64(l.pid), 10) }),
		"hostname": text(func(l *line) string { return l.hostname }),
	}
}

// attemptVariables are lists over the attempts, joined as nginx joins them.
func attemptVariables() map[string]variable {
	list := func(put func(dst []byte, a *Attempt) []byte) variable {
		return variable{put: func(dst []byte, l *line) ([]byte, bool) {
			for i := range l.s.Attempts {
				if i > 0 {
					dst = append(dst, ", "...)
				}
				dst = put(dst, &l.s.Attempts[i])
			}
			return dst, len(l.s.Attempts) > 0
		}}
	}
	seconds := func(get func(a *Attempt) (time.Duration, bool)) variable {
		return list(func(dst []byte, a *Attempt) []byte {
			d, ok := get(a)
			if !ok {
				return append(dst, '-')
			}
			return appendSeconds(dst, d)
		})
	}
	return map[string]variable{
		"upstream_addr": list(func(dst []byte, a *Attempt) []byte { return append(dst, a.Addr...) }),
		"upstream_bytes_sent": list(func(dst []byte, a *Attempt) []byte {
			return strconv.AppendUint(dst, a.BytesSent, 10)
		}),
		"upstream_bytes_received": list(func(dst []byte, a *Attempt) []byte {
			return strconv.AppendUint(dst, a.BytesReceived, 10)
		}),
		"upstream_connect_time":    seconds(func(a *Attempt) (time.Duration, bool) { return a.Connect, a.Connected }),
		"upstream_first_byte_time": seconds(func(a *Attempt) (time.Duration, bool) { return a.FirstByte, a.GotByte }),
		"upstream_session_time":    seconds(func(a *Attempt) (time.Duration, bool) { return a.Session, true }),
	}
}

func ownVariables() map[string]variable {
	rtt := func(get func(s *Record) time.Duration) variable {
		return maybe(func(dst []byte, l *line) ([]byte, bool) {
			return appendMicros(dst, get(l.s)), true
		}).unless(func(l *line) bool { return get(l.s) <= 0 })
	}
	return map[string]variable{
		"listener":     text(func(l *line) string { return l.s.Listener }),
		"pool":         text(func(l *line) string { return l.s.Pool }),
		"datapath":     text(func(l *line) string { return l.s.Datapath }),
		"end_reason":   text(func(l *line) string { return string(l.s.Reason) }),
		"client_rtt":   rtt(func(s *Record) time.Duration { return s.ClientRTT }),
		"upstream_rtt": rtt(func(s *Record) time.Duration { return s.UpstreamRTT }),
		"upstream_retrans": maybe(func(dst []byte, l *line) ([]byte, bool) {
			return strconv.AppendInt(dst, l.s.UpstreamRetrans, 10), true
		}).unless(func(l *line) bool { return l.s.UpstreamRetrans < 0 }),
		"bytes_spliced": count(func(s *Record) uint64 { return s.BytesSpliced }),
		"grpc_method": text(func(l *line) string {
			if l.s.RPC == nil {
				return ""
			}
			return l.s.RPC.Method
		}),
		"grpc_status": maybe(func(dst []byte, l *line) ([]byte, bool) {
			return strconv.AppendInt(dst, int64(l.s.RPC.Status), 10), true
		}).unless(func(l *line) bool { return l.s.RPC == nil || l.s.RPC.Status < 0 }),
	}
}

// unless is the variable with no value where missing says so.
func (v variable) unless(missing func(l *line) bool) variable {
	put := v.put
	v.put = func(dst []byte, l *line) ([]byte, bool) {
		if missing(l) {
			return dst, false
		}
		return put(dst, l)
	}
	return v
}

// appendPeer appends an address as nginx prints it: without port or brackets.
func appendPeer(dst []byte, p Peer) ([]byte, bool) {
	if p.Unix {
		return append(append(dst, "unix:"...), p.Path...), true
	}
	return appendAddr(dst, p.AddrPort.Addr())
}

func appendAddr(dst []byte, a netip.Addr) ([]byte, bool) {
	if !a.IsValid() {
		return dst, false
	}
	return a.Unmap().WithZone("").AppendTo(dst), true
}

// appendPort appends a port. A unix socket's is empty, which isn't missing.
func appendPort(dst []byte, p Peer) ([]byte, bool) {
	if p.Unix {
		return dst, true
	}
	if !p.AddrPort.Addr().IsValid() {
		return dst, false
	}
	return strconv.AppendUint(dst, uint64(p.AddrPort.Port()), 10), true
}
