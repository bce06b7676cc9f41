// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"sluice/config"
)

func TestRouter(t *testing.T) {
	r := newRouter([]config.Route{
		{Methods: []string{"/a.S/Get", "/a.S/Get"}},
		{Methods: []string{"/a.S/G*", "milvus1-reads"}},
		{Methods: []string{"/a.S/"}},
		{Methods: []string{"/a.S/Late", "milvus1-writes", "/milvus.grpc.MilvusService/Search"}},
		{Methods: []string{"/b*"}},
	})
	for method, want := range map[string]int{
		"/a.S/Get": 0, "/a.S/Gets": 1, "/a.S/G": 1, "/a.S/Put": 2, "/a.S/Late": 2, "/a.SS/Get": -1, "/bc/d": 4, "/c/d": -1, "": -1,
		"/milvus.grpc.MilvusService/Search": 1, "/milvus.grpc.MilvusService/Insert": 3, "/milvus.grpc.MilvusService/PreloadCollection": -1,
	} {
		if got := r.match(method); got != want {
			t.Errorf("%s: route %d, want %d", method, got, want)
		}
	}
	if got := newRouter([]config.Route{{Methods: []string{"*"}}}).match("/x/y"); got != 0 {
		t.Errorf("*: %d", got)
	}
}

func TestParseTimeout(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"1S": time.Second, "99999999H": 0 /* beyond what a duration holds */, "250m": 250 * time.Millisecond, "7u": 7 * time.Microsecond, "8n": 8, "2M": 2 * time.Minute,
		"": 0, "S": 0, "1": 0, "1s": 0, "-1S": 0, "+1S": 0, "123456789S": 0, "1.5S": 0, "0S": 0,
	} {
		if got := parseTimeout(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

func TestMessages(t *testing.T) {
	var whole []byte
	sizes := []int{0, 1, 5, 300, 70000}
	for _, n := range sizes {
		whole = append(whole, 0, 0, byte(n>>16), byte(n>>8), byte(n))
		whole = append(whole, make([]byte, n)...)
	}
	for _, step := range []int{1, 2, 3, 7, 1000, len(whole)} {
		var m messages
		var largest uint32
		for b := whole; len(b) > 0; {
			n := min(step, len(b))
			largest = max(largest, m.add(b[:n]))
			b = b[n:]
		}
		if m.count != len(sizes) || largest != 70000 || m.left != 0 || m.got != 0 {
			t.Errorf("in steps of %d: %+v, the largest %d", step, m, largest)
		}
	}
}

// Whatever is added comes out, in order, and all memory is given back.
func TestQueue(t *testing.T) {
	mem := &memory{most: 1 << 30}
	h := &held{mem: mem}
	for range 200 {
		var q queue
		var kept []view
		var in, out []byte
		for range 50 {
			b := make([]byte, rand.IntN(3000))
			for i := range b {
				b[i] = byte(rand.Int())
			}
			switch {
			case len(b) == 0:
			case rand.IntN(2) == 0 && q.join(b):
				in = append(in, b...)
			default:
				v := newView(b, h)
				if rand.IntN(3) == 0 {
					v.c.refs.Add(1)
					kept = append(kept, v)
				}
				q.add(v)
				in = append(in, b...)
			}
			for n := rand.IntN(2000); n > 0 && q.n > 0; {
				v, _ := q.first(n)
				n -= len(v.b)
				out = append(out, v.b...)
				v.c.release()
			}
		}
		for q.n > 0 {
			v, _ := q.first(1 << 20)
			out = append(out, v.b...)
			v.c.release()
		}
		for _, v := range kept {
			v.release()
		}
		if !bytes.Equal(in, out) {
			t.Fatal("other bytes come out")
		}
	}
	if mem.all.Load() != 0 || h.conn.Load() != 0 {
		t.Errorf("%d bytes are held", mem.all.Load())
	}
}

func TestFields(t *testing.T) {
	f := func(list ...string) (out []hpack.HeaderField) {
		for i := 0; i < len(list); i += 2 {
			out = append(out, hpack.HeaderField{Name: list[i], Value: list[i+1]})
		}
		return out
	}
	good := []string{":method", "POST", ":scheme", "http", ":path", "/s.S/M"}
	for name, tt := range map[string]struct {
		fields []hpack.HeaderField
		ok     bool
	}{
		"least":            {f(good...), true},
		"no path":          {f(good[:4]...), false},
		"empty path":       {f(":method", "POST", ":scheme", "http", ":path", ""), false},
		"path twice":       {f(append(good[:6:6], ":path", "/x")...), false},
		"method twice":     {f(append(good[:6:6], ":method", "GET")...), false},
		"two authorities":  {f(append(good[:6:6], ":authority", "a", ":authority", "b")...), false},
		"unknown":          {f(append(good[:6:6], ":status", "200")...), false},
		"after the others": {f(append([]string{"a", "b"}, good...)...), false},
		"connect":          {f(":method", "CONNECT", ":scheme", "http", ":path", "/"), false},
	} {
		if _, err := readRequest(tt.fields); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tt := range map[string]struct {
		name, value string
		ok          bool
	}{
		"plain": {"a", "b", true}, "pseudo": {":path", "/", true}, "bytes": {"a", "\x80\xff\t", true}, "trailers": {"te", "trailers", true},
		"upper": {"A", "b", false}, "empty": {"", "b", false}, "colon": {":", "b", false}, "space": {"a b", "c", false}, "break": {"a", "b\nc", false},
		"nul": {"a", "\x00", false}, "connection": {"connection", "close", false}, "te": {"te", "gzip", false}, "upgrade": {"upgrade", "h2c", false},
	} {
		if err := checkField(hpack.HeaderField{Name: tt.name, Value: tt.value}); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := encodeMessage("a%b\n\u00e9"); got != "a%25b%0A%C3%A9" {
		t.Error(got)
	}
	for status, want := range map[string]int{"0": 0, "14": 14, "": -1, "x": -1, "-1": -1, "99999999999": -1, "77": 77} {
		if got := statusOf(f("a", "b", "grpc-status", status)); got != want {
			t.Errorf("%q: %d", status, got)
		}
	}
}
