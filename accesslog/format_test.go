// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sluice/config"
)

// at is when the sample lines were written.
var at = time.Date(2026, time.November, 23, 9, 23, 7, 123_987_000, time.UTC)

func formatted(t testing.TB, format string, now time.Time, s *Record) string {
	t.Helper()
	f, err := newFormatter(format)
	if err != nil {
		t.Fatal(err)
	}
	f.clock.set(now)
	return string(f.append(nil, s))
}

func ip(s string) Peer { return Peer{AddrPort: netip.MustParseAddrPort(s)} }

// tried is an attempt that connected in no time worth a millisecond.
func tried(addr string, sent, received uint64) Attempt {
	return Attempt{Addr: addr, Connected: true, GotByte: true, BytesSent: sent, BytesReceived: received,
		Connect: 900 * time.Microsecond}
}

func session(client Peer, status int, sent, received uint64, took time.Duration, attempts ...Attempt) *Record {
	return &Record{Client: client, Status: status, BytesSent: sent, BytesReceived: received,
		Start: at.Add(-took), Attempts: attempts, UpstreamRetrans: -1}
}

func TestProxyFormatIsNginxToTheByte(t *testing.T) {
	local := ip("127.0.0.1:40000")
	const ms = time.Millisecond
	slow := tried("127.0.0.1:19002", 1, 6)
	slow.Connect = ms
	tests := []struct {
		name string
		s    *Record
		want string // after the time
	}{
		{"normal", session(local, 200, 9, 5, ms, tried("127.0.0.1:19001", 5, 9)),
			`127.0.0.1 [T] TCP 200 9 5 0.001 "127.0.0.1:19001" "5" "9" "0.000"`},
		{"connect and close", session(local, 200, 0, 0, ms, tried("127.0.0.1:19001", 0, 0)),
			`127.0.0.1 [T] TCP 200 0 0 0.001 "127.0.0.1:19001" "0" "0" "0.000"`},
		{"first refused", session(local, 200, 9, 5, ms, Attempt{Addr: "127.0.0.1:19999"}, tried("127.0.0.1:19001", 5, 9)),
			`127.0.0.1 [T] TCP 200 9 5 0.001 "127.0.0.1:19999, 127.0.0.1:19001" "0, 5" "0, 9" "-, 0.000"`},
		{"first timed out", session(local, 200, 9, 5, 1002*ms, Attempt{Addr: "127.0.0.1:19010", Session: time.Second}, tried("127.0.0.1:19001", 5, 9)),
			`127.0.0.1 [T] TCP 200 9 5 1.002 "127.0.0.1:19010, 127.0.0.1:19001" "0, 5" "0, 9" "-, 0.000"`},
		{"all refused", session(local, 502, 0, 0, 0, Attempt{Addr: "127.0.0.1:19998"}, Attempt{Addr: "127.0.0.1:19997"}),
			`127.0.0.1 [T] TCP 502 0 0 0.000 "127.0.0.1:19998, 127.0.0.1:19997" "0, 0" "0, 0" "-, -"`},
		{"all ejected", session(local, 502, 0, 0, 0, Attempt{Addr: "dead"}), `127.0.0.1 [T] TCP 502 0 0 0.000 "dead" "0" "0" "-"`},
		{"max_conns", session(local, 502, 0, 0, 0, Attempt{Addr: "maxc"}), `127.0.0.1 [T] TCP 502 0 0 0.000 "maxc" "0" "0" "-"`},
		{"denied", session(local, 403, 0, 0, 0), `127.0.0.1 [T] TCP 403 0 0 0.000 "-" "-" "-" "-"`},
		{"limited", session(local, 503, 0, 0, 0), `127.0.0.1 [T] TCP 503 0 0 0.000 "-" "-" "-" "-"`},
		{"bad header", session(local, 400, 0, 0, 0), `127.0.0.1 [T] TCP 400 0 0 0.000 "-" "-" "-" "-"`},
		{"idle timeout", session(local, 200, 6, 1, 1002*ms, slow),
			`127.0.0.1 [T] TCP 200 6 1 1.002 "127.0.0.1:19002" "1" "6" "0.001"`},
		{"proxy_protocol", session(local, 200, 53, 5, 0, tried("127.0.0.1:19001", 49, 53)),
			`127.0.0.1 [T] TCP 200 53 5 0.000 "127.0.0.1:19001" "49" "53" "0.000"`},
		{"IPv6 upstream", session(local, 200, 9, 5, 0, tried("[::1]:19006", 5, 9)),
			`127.0.0.1 [T] TCP 200 9 5 0.000 "[::1]:19006" "5" "9" "0.000"`},
		{"IPv6 client", session(ip("[::1]:40000"), 200, 10, 5, ms, tried("127.0.0.1:19002", 5, 10)),
			`::1 [T] TCP 200 10 5 0.001 "127.0.0.1:19002" "5" "10" "0.000"`},
		{"mapped client", session(ip("[::ffff:127.0.0.1]:40000"), 403, 0, 0, 0), `127.0.0.1 [T] TCP 403 0 0 0.000 "-" "-" "-" "-"`},
		{"unix client", session(Peer{Unix: true}, 200, 9, 5, ms, tried("127.0.0.1:19001", 5, 9)),
			`unix: [T] TCP 200 9 5 0.001 "127.0.0.1:19001" "5" "9" "0.000"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := strings.Replace(tt.want, "T", "23/Nov/2026:09:23:07 +0000", 1) + "\n"
			if got := formatted(t, config.FormatProxy, at, tt.s); got != want {
				t.Errorf("got  %swant %s", got, want)
			}
		})
	}
}

func TestVariables(t *testing.T) {
	full := session(ip("[fe80::1%eth0]:5"), 200, 9, 5, 1999*time.Microsecond, Attempt{Addr: "a", Session: 2 * time.Second},
		Attempt{Addr: "b", Connected: true, Connect: 1500 * time.Microsecond, GotByte: true, FirstByte: 61 * time.Second, Session: 62 * time.Second})
	full.ID, full.Listener, full.Pool, full.Datapath, full.Reason = 42, "front", "readers", "splice", ClientReset
	full.Server, full.ProxyAddr = ip("10.0.0.1:80"), netip.MustParseAddrPort("192.0.2.1:99")
	full.ClientRTT, full.UpstreamRTT = 123*time.Microsecond, 1_000_001*time.Microsecond
	full.UpstreamRetrans, full.BytesSpliced = 3, 14
	full.RPC = &RPC{Method: "/p.S/M", Status: 5}
	bare := session(Peer{}, 7, 0, 0, -time.Second)
	bare.ClientRTT = -1
	local := session(Peer{Unix: true}, 200, 0, 0, 0)
	local.Server = Peer{Unix: true, Path: "/run/x"}
	west := time.FixedZone("", -(3*3600 + 30*60))
	host, _ := os.Hostname()
	tests := []struct {
		format string
		s      *Record
		want   string
	}{
		{"$remote_addr|$remote_port|$server_addr|$server_port", full, "fe80::1|5|10.0.0.1|80"},
		{"$remote_addr|$remote_port|$server_addr|$server_port", bare, "-|-|-|-"},
		{"$remote_addr|$remote_port|$server_addr|$server_port", local, "unix:||unix:/run/x|"},
		{"$proxy_protocol_addr|$proxy_protocol_port", full, "192.0.2.1|99"},
		{"$proxy_protocol_addr|$proxy_protocol_port", bare, "-|-"},
		{"$connection ${status}x", full, "42 200x"},
		{"$status $session_time", bare, "007 0.000"},
		{"$session_time $upstream_connect_time; $upstream_first_byte_time; $upstream_session_time", full,
			"0.001 -, 0.001; -, 61.000; 2.000, 62.000"},
		{"$msec $time_iso8601 $time_local", full, "1795425787.123 2026-11-23T05:53:07-03:30 23/Nov/2026:05:53:07 -0330"},
		{"$hostname $protocol", full, strings.ToLower(host) + " GRPC"},
		{"$protocol", bare, "TCP"},
		{"$listener $pool $datapath $end_reason", full, "front readers splice client_reset"},
		{"$listener $pool $datapath $end_reason", bare, "- - - -"},
		{"$client_rtt $upstream_rtt $upstream_retrans $bytes_spliced", full, "0.000123 1.000001 3 14"},
		{"$client_rtt $upstream_rtt $upstream_retrans $bytes_spliced", bare, "- - - 0"},
		{"$grpc_method $grpc_status", full, "/p.S/M 5"},
		{"$grpc_method $grpc_status", bare, "- -"},
		{"no variable", bare, "no variable"},
	}
	for _, tt := range tests {
		if got := formatted(t, tt.format, at.In(west), tt.s); got != tt.want+"\n" {
			t.Errorf("%s: got %q, want %q", tt.format, got, tt.want)
		}
	}
}

func TestVariablesAgreeWithConfig(t *testing.T) {
	ours, theirs := slices.Sorted(maps.Keys(variables())), slices.Sorted(slices.Values(config.Variables()))
	if !slices.Equal(ours, theirs) {
		t.Errorf("variables here: %v\nin config: %v", ours, theirs)
	}
	for name, v := range variables() {
		if v.number && !v.safe {
			t.Errorf("$%s is a number that may have bytes to be escaped", name)
		}
	}
}

func TestFormatErrors(t *testing.T) {
	for _, format := range []string{"$nope", "a\nb", "$", "${status"} {
		if _, err := newFormatter(format); err == nil {
			t.Errorf("%q is taken", format)
		}
	}
}

func TestEscape(t *testing.T) {
	var all, want []byte
	for c := range 256 {
		all = append(all, byte(c))
		if c < 32 || c > 126 || c == '"' || c == '\\' {
			const hex = "0123456789ABCDEF"
			want = append(want, '\\', 'x', hex[c/16], hex[c%16])
		} else {
			want = append(want, byte(c))
		}
	}
	s := session(Peer{Unix: true, Path: string(all)}, 200, 0, 0, 0)
	if got := formatted(t, "é$remote_addr\"", at, s); got != "éunix:"+string(want)+"\"\n" {
		t.Errorf("got %q", got)
	}
}

func TestJSON(t *testing.T) {
	s := session(ip("127.0.0.1:1"), 502, 0, 0, 1500*time.Millisecond, Attempt{Addr: "a:1"}, Attempt{Addr: "p"})
	s.Pool, s.Listener, s.Reason, s.ClientRTT = "p", "l", NoBackend, 21*time.Microsecond
	const want = `{"remote_addr":"127.0.0.1","time_local":"23/Nov/2026:09:23:07 +0000","protocol":"TCP","status":502,` +
		`"bytes_sent":0,"bytes_received":0,"session_time":1.500,"upstream_addr":"a:1, p","upstream_bytes_sent":"0, 0",` +
		`"upstream_bytes_received":"0, 0","upstream_connect_time":"-, -","listener":"l","pool":"p","datapath":"-",` +
		`"end_reason":"no_backend","client_rtt":0.000021,"upstream_rtt":null,"upstream_retrans":null,"bytes_spliced":0,` +
		`"grpc_method":"-","grpc_status":null}` + "\n"
	if got := formatted(t, config.FormatJSON, at, s); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func FuzzJSONIsValid(f *testing.F) {
	f.Add("plain", "\x00\x1f\x7f\"\\", 200, uint64(0), int64(5))
	f.Add("\xff\xfe\xc0\x80", "\u2028\ud7ff</script>", 0, ^uint64(0), int64(-1))
	f.Add("é\xe2\x82", "\xf0\x9f\x98\x80", 7, uint64(1)<<63, int64(1)<<62)
	f.Fuzz(func(t *testing.T, path, name string, status int, bytes uint64, took int64) {
		s := session(Peer{Unix: true, Path: path}, max(status, 0), bytes, bytes, time.Duration(took), Attempt{Addr: name, BytesSent: bytes})
		s.Listener, s.Pool, s.Datapath, s.Reason = name, path, name, EndReason(path)
		s.ClientRTT, s.UpstreamRTT, s.UpstreamRetrans = time.Duration(took), time.Duration(-took), took
		s.RPC = &RPC{Method: path + name, Status: status}
		text := formatted(t, config.FormatJSON, at, s)
		if strings.Count(text, "\n") != 1 || !utf8.ValidString(text) {
			t.Fatalf("not one line of UTF-8: %q", text)
		}
		var back map[string]any
		if err := json.Unmarshal([]byte(text), &back); err != nil {
			t.Fatalf("%v: %q", err, text)
		}
		if want := strings.ToValidUTF8(path, ""); utf8.ValidString(path) && back["remote_addr"] != "unix:"+want {
			t.Fatalf("remote_addr is %q, want %q", back["remote_addr"], "unix:"+want)
		}
		for _, c := range []byte(strings.TrimSuffix(formatted(t, "$remote_addr$upstream_addr", at, s), "\n")) {
			if c < ' ' || c > '~' || c == '"' {
				t.Fatalf("byte %#x is not escaped", c)
			}
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, format := range []string{config.FormatProxy, config.FormatJSON} {
		b.Run(format, func(b *testing.B) {
			f, err := newFormatter(format)
			if err != nil {
				b.Fatal(err)
			}
			s := session(ip("127.0.0.1:40000"), 200, 9, 5, time.Second, tried("127.0.0.1:19001", 5, 9))
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				f.clock.set(time.Now())
				buf = f.append(buf[:0], s)
			}
		})
	}
}

func TestNoAllocationPerLine(t *testing.T) {
	for _, format := range []string{config.FormatProxy, config.FormatJSON, "$remote_addr $upstream_addr $msec"} {
		f, err := newFormatter(format)
		if err != nil {
			t.Fatal(err)
		}
		s := session(Peer{Unix: true, Path: "\""}, 200, 9, 5, time.Second, tried("127.0.0.1:19001", 5, 9))
		if format == config.FormatJSON {
			s.Client = ip("[::1]:1")
		}
		buf := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(100, func() {
			f.clock.set(at)
			buf = f.append(buf[:0], s)
		}); n != 0 {
			t.Errorf("%s: %v allocations a line", format, n)
		}
	}
}
