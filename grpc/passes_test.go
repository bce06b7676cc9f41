// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	rpc "google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"sluice/accesslog"
	"sluice/config"
)

// pair is a raw client and a raw backend with a call between them: what one
// sends the other gets.
type pair struct {
	rig    *rig
	client *raw
	server *raw
}

func newPair(t *testing.T, change func(*config.Listener), settings ...http2.Setting) *pair {
	t.Helper()
	got := make(chan *raw)
	hold := make(chan struct{})
	b := serveRaw(t, settings, func(r *raw, _ int) {
		got <- r
		<-hold
	})
	t.Cleanup(func() { close(hold) })
	p := &pair{rig: newRig(t, backends{"pool": {b.addr}}, change)}
	p.client = rawClient(t, p.rig.front.Addr().String())
	p.client.request(1, false, "user-agent", "raw/1", "grpc-timeout", "9S", "x-bin", "AAEC", "authorization", "secret")
	p.server = <-got
	return p
}

// A request's metadata come as they were sent: none more, none less.
func TestMetadataPass(t *testing.T) {
	p := newPair(t, nil)
	h := want[*http2.MetaHeadersFrame](p.server)
	var got []string
	for _, f := range h.Fields {
		got = append(got, f.Name+"="+f.Value)
	}
	const sent = ":method=POST :scheme=http :path=/s.S/M :authority=front content-type=application/grpc te=trailers " +
		"user-agent=raw/1 grpc-timeout=9S x-bin=AAEC authorization=secret"
	if strings.Join(got, " ") != sent || h.StreamEnded() {
		t.Errorf("got %v", got)
	}
}

// An answer that is trailers only stays one frame; trailers with details pass.
func TestAnswersPass(t *testing.T) {
	p := newPair(t, nil)
	id := want[*http2.MetaHeadersFrame](p.server).StreamID
	p.server.headers(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5", "grpc-message", "none%20here", "grpc-status-details-bin", "CAUSBG5vbmU")
	h := want[*http2.MetaHeadersFrame](p.client)
	if !h.StreamEnded() || get(h, "grpc-status") != "5" || get(h, "grpc-message") != "none%20here" || get(h, "grpc-status-details-bin") != "CAUSBG5vbmU" || len(h.Fields) != 5 {
		t.Errorf("%v", h.Fields)
	}
	// The request wasn't complete: the rest isn't wanted.
	for _, end := range []*raw{p.client, p.server} {
		if f := want[*http2.RSTStreamFrame](end); f.ErrCode != http2.ErrCodeNo {
			t.Errorf("%v", f)
		}
	}

	p.client.request(3, true)
	id = want[*http2.MetaHeadersFrame](p.server).StreamID
	p.server.headers(id, false, ":status", "200", "content-type", "application/grpc", "x", "1")
	p.server.WriteData(id, false, message("hello"))
	p.server.headers(id, true, "grpc-status", "0", "y-bin", "AA")
	if h := want[*http2.MetaHeadersFrame](p.client); h.StreamEnded() || get(h, "x") != "1" {
		t.Errorf("%v", h.Fields)
	}
	if d := want[*http2.DataFrame](p.client); string(d.Data()[5:]) != "hello" || d.StreamEnded() {
		t.Errorf("%q", d.Data())
	}
	if h := want[*http2.MetaHeadersFrame](p.client); !h.StreamEnded() || get(h, "y-bin") != "AA" {
		t.Errorf("%v", h.Fields)
	}
}

// Cancellation passes, either way, with its code.
func TestResetPasses(t *testing.T) {
	p := newPair(t, nil)
	id := want[*http2.MetaHeadersFrame](p.server).StreamID
	p.client.WriteRSTStream(1, http2.ErrCodeCancel)
	if f := want[*http2.RSTStreamFrame](p.server); f.ErrCode != http2.ErrCodeCancel || f.StreamID != id {
		t.Errorf("%v", f)
	}
	if rec := p.rig.ended(1)[0]; rec.Reason != accesslog.Cancelled || rec.Status != 200 || rec.RPC.Status != -1 {
		t.Errorf("%+v", rec)
	}
	p.client.request(3, true)
	id = want[*http2.MetaHeadersFrame](p.server).StreamID
	p.server.headers(id, false, ":status", "200", "content-type", "application/grpc")
	p.server.WriteData(id, false, message("some"))
	p.server.WriteRSTStream(id, http2.ErrCodeInternal)
	want[*http2.MetaHeadersFrame](p.client)
	want[*http2.DataFrame](p.client)
	if f := want[*http2.RSTStreamFrame](p.client); f.ErrCode != http2.ErrCodeInternal || f.StreamID != 3 {
		t.Errorf("%v", f)
	}
	if rec := p.rig.ended(2)[1]; rec.Reason != accesslog.BackendReset || rec.Status != 200 || rec.RPC.Status != -1 {
		t.Errorf("%+v", rec)
	}
}

// A complete answer before the request is: data, trailers and then the reset,
// whoever reads slowly.
func TestEarlyAnswer(t *testing.T) {
	p := newPair(t, nil)
	id := want[*http2.MetaHeadersFrame](p.server).StreamID
	p.server.headers(id, false, ":status", "200", "content-type", "application/grpc")
	body := bytes.Repeat([]byte("0123456789abcdef"), 4000)
	for rest := message(string(body)); len(rest) > 0; {
		part := rest[:min(len(rest), 16384)]
		rest = rest[len(part):]
		p.server.WriteData(id, false, part)
	}
	p.server.headers(id, true, "grpc-status", "9")
	p.server.WriteRSTStream(id, http2.ErrCodeNo)
	time.Sleep(50 * time.Millisecond)
	text, st := p.client.outcome(1)
	if text != string(body) || st != "9 " {
		t.Errorf("%d bytes, status %q", len(text), st)
	}
	if f := want[*http2.RSTStreamFrame](p.client); f.ErrCode != http2.ErrCodeNo {
		t.Errorf("%v", f)
	}
}

// Pings are answered, with and without calls; GOAWAY of a client ends nothing.
func TestPingsAndGoAway(t *testing.T) {
	p := newPair(t, nil)
	id := want[*http2.MetaHeadersFrame](p.server).StreamID
	p.client.WriteGoAway(0, http2.ErrCodeNo, nil)
	for i := range byte(100) {
		p.client.WritePing(false, [8]byte{i})
		if f := want[*http2.PingFrame](p.client); f.Data[0] != i {
			t.Fatalf("%v", f.Data)
		}
		p.server.WritePing(false, [8]byte{i})
		if f := want[*http2.PingFrame](p.server); f.Data[0] != i {
			t.Fatalf("%v", f.Data)
		}
	}
	p.server.answer(id, "a")
	if text, _ := p.client.outcome(1); text != "a" {
		t.Errorf("%q", text)
	}
}

// 64 KB of binary metadata pass, both ways, in frames of CONTINUATION.
func TestLargeMetadata(t *testing.T) {
	p := newPair(t, nil)
	want[*http2.MetaHeadersFrame](p.server)
	noise := make([]byte, 64<<10)
	rand.Read(noise)
	big := strings.NewReplacer("+", "a", "/", "b").Replace(fmt.Sprintf("%x", noise)[:88<<10])
	p.client.request(3, true, "big-bin", big)
	h := want[*http2.MetaHeadersFrame](p.server)
	if get(h, "big-bin") != big {
		t.Error("the request's metadata are others")
	}
	p.server.headers(h.StreamID, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0", "big-bin", big)
	for {
		f, err := p.client.next()
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok && h.StreamID == 3 {
			if get(h, "big-bin") != big {
				t.Error("the answer's metadata are others")
			}
			return
		}
	}
}

// odd is a compressor that only both ends know.
type odd struct{}

func (odd) Name() string                                 { return "odd" }
func (odd) Decompress(r io.Reader) (io.Reader, error)    { return io.MultiReader(r), nil }
func (odd) Compress(w io.Writer) (io.WriteCloser, error) { return nopCloser{w}, nil }

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Compression is the ends' business, also one that nobody else knows.
func TestCompression(t *testing.T) {
	encoding.RegisterCompressor(odd{})
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	c := testgrpc.NewTestServiceClient(r.client())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, name := range []string{gzip.Name, "odd"} {
		out, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 100000, Payload: &testgrpc.Payload{Body: make([]byte, 100000)}}, rpc.UseCompressor(name))
		if err != nil || len(out.GetPayload().GetBody()) != 100000 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Messages of any size: no limit of ours.
func TestLargeMessages(t *testing.T) {
	const size = 64 << 20
	a := newServer(t, "a", rpc.MaxRecvMsgSize(size+100), rpc.MaxSendMsgSize(size+100))
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	c := testgrpc.NewTestServiceClient(r.client(rpc.WithDefaultCallOptions(rpc.MaxCallRecvMsgSize(size+100), rpc.MaxCallSendMsgSize(size+100))))
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	out, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: size, Payload: &testgrpc.Payload{Body: make([]byte, size)}})
	if err != nil || len(out.GetPayload().GetBody()) != size {
		t.Fatalf("%d bytes, %v", len(out.GetPayload().GetBody()), err)
	}
	if rec := r.ended(1)[0]; rec.BytesReceived < size || rec.BytesSent < size {
		t.Errorf("%+v", rec)
	}
}

// max_message ends a call that has a larger one, either way.
func TestMaxMessage(t *testing.T) {
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, func(c *config.Listener) { c.GRPC.MaxMessage = 10000 })
	c := testgrpc.NewTestServiceClient(r.client())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, tt := range []struct {
		up, down int
		want     string
	}{
		{9000, 9000, ""},
		{20000, 0, "rpc error: code = ResourceExhausted desc = sluice: a message of 20008 bytes is larger than max_message, 10000 bytes"},
		{0, 20000, "rpc error: code = ResourceExhausted desc = sluice: a message of 20011 bytes is larger than max_message, 10000 bytes"},
	} {
		_, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: int32(tt.down), Payload: &testgrpc.Payload{Body: make([]byte, tt.up)}})
		if got := fmt.Sprint(err); got != tt.want && !(tt.want == "" && err == nil) {
			t.Errorf("%d, %d: %s", tt.up, tt.down, got)
		}
	}
	if rec := r.ended(3)[2]; rec.Status != 503 || rec.Reason != accesslog.Limited || rec.RPC.Status != 8 {
		t.Errorf("%+v", rec)
	}
}

// 10 000 streams on one connection, each with messages both ways.
func TestManyStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	a, b := newServer(t, "a"), newServer(t, "b")
	r := newRig(t, backends{"pool": {a.addr, b.addr}}, nil)
	c := testgrpc.NewTestServiceClient(r.client())
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "k", "v"), 60*time.Second)
	defer cancel()
	const n = 10000
	streams := make([]testgrpc.TestService_FullDuplexCallClient, n)
	var wg sync.WaitGroup
	for i := range streams {
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		streams[i] = s
	}
	for _, s := range streams {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 3 {
				if err := turn(s); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	if n := r.settings.Counters.Active.Load(); n != 10000 {
		t.Errorf("%d calls are live", n)
	}
	cancel() // all at once: as many resets
	r.ended(n)
	if n := connections(r).Clients; n != 1 {
		t.Errorf("%d connections: the resets were too many for it", n)
	}
}

// Bytes through windows of all sizes, both ways at once, are the same bytes.
func TestWindows(t *testing.T) {
	for _, size := range []uint32{1, 1000, 65535, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			p := newPair(t, nil)
			p.client.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: size})
			p.server.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: size})
			id := want[*http2.MetaHeadersFrame](p.server).StreamID
			p.server.headers(id, false, ":status", "200", "content-type", "application/grpc")
			n := 3 << 20
			if size == 1 {
				n = 2000
			}
			sent := make([]byte, n)
			rand.Read(sent)
			sum := func(r *raw, id uint32) (got uint32) {
				h := crc32.NewIEEE()
				for {
					f, err := r.next()
					if err != nil {
						t.Error(err)
						return 0
					}
					switch f := f.(type) {
					case *http2.DataFrame:
						h.Write(f.Data())
						if f.StreamEnded() {
							return h.Sum32()
						}
					case *http2.MetaHeadersFrame:
						if f.StreamEnded() {
							return h.Sum32()
						}
					case *http2.RSTStreamFrame:
						if f.ErrCode != http2.ErrCodeNo {
							t.Errorf("%v", f)
						}
						return h.Sum32()
					}
				}
			}
			var wg sync.WaitGroup
			wg.Add(3)
			got := make(chan struct{})
			whole := crc32.ChecksumIEEE(message(string(sent)))
			go func() {
				defer wg.Done()
				p.client.send(1, sent, true)
			}()
			go func() {
				defer wg.Done()
				if got := sum(p.server, id); got != whole {
					t.Errorf("the request's sum is %x, want %x", got, whole)
				}
				close(got)
				for err := error(nil); err == nil; { // windows come yet
					_, err = p.server.next()
				}
			}()
			go func() {
				defer wg.Done()
				p.server.send(id, sent, false)
				<-got // an answer that is complete ends the request
				p.server.headers(id, true, "grpc-status", "0")
			}()
			if got := sum(p.client, 1); got != whole {
				t.Errorf("the answer's sum is %x, want %x", got, whole)
			}
			p.server.Conn.Close()
			wg.Wait()
		})
	}
}
