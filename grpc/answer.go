// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"errors"
	"io"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/accesslog"
	"sluice/session"
)

// The status codes that sluice itself answers with.
const (
	resourceExhausted = 8
	unimplemented     = 12
	unavailable       = 14
	deadlineExceeded  = 4
)

// answer is told of a header block of the backend's.
func (c *call) answer(up *stream, fields []hpack.HeaderField, end bool, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spread != nil {
		c.spread.headers(up, fields, end, w)
		return
	}
	if c.up != up || c.over || c.ending {
		return
	}
	c.first()
	var err error
	interim := false
	if c.answered {
		if err = noPseudo(fields); err == nil && !end {
			err = errPseudo // trailers that don't end it
		}
	} else {
		interim, err = checkResponse(fields)
	}
	switch {
	case err != nil || interim && end:
		c.brokenBackend(w)
	case end:
		c.answerEnds(tail{fields: fields}, statusOf(fields), w)
	default:
		c.answered = !interim
		c.down.headers(fields, w)
	}
}

// first notes that the answer has begun: there is no other attempt from now on.
func (c *call) first() {
	if !c.begun {
		c.begun = true
		c.First = c.now()
		c.forget()
	}
}

// fromBackend is told of bytes of the answer.
func (c *call) fromBackend(up *stream, v view, small []byte, end bool, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(v.b) + len(small); n > 0 {
		c.last.Store(up.l.in.now)
	}
	if c.spread != nil {
		c.spread.reply(up, v, small, end, w)
		return
	}
	if c.up != up || c.over || c.ending || !c.allowed(&c.replied, v, small, w) {
		v.release()
		return
	}
	if !c.answered {
		v.release()
		c.brokenBackend(w)
		return
	}
	c.down.push(up, v, small, &c.client.held, w)
	if end {
		c.answerEnds(tail{}, -1, w)
	}
}

// answerEnds has the answer end with t, once what came before it has left.
func (c *call) answerEnds(t tail, status int, w *work) {
	c.status, c.reason, c.httpCode = status, accesslog.BackendClosed, 200
	if status == deadlineExceeded {
		c.reason = accesslog.Deadline
	}
	c.down.l.earn(creditCall)
	c.finish(t, w)
	if c.up != nil {
		c.up.l.earn(creditCall)
		c.up.cancel(http2.ErrCodeNo, w) // unless the request is complete too
	}
}

// finish puts the end of the answer behind its bytes; then the call ends.
func (c *call) finish(t tail, w *work) {
	c.settle()
	c.forget()
	c.ending = true
	t.call = true
	c.down.finish(t, w)
}

// delivered is told that all that came before the end of the answer is about to
// enter the client's socket: the call ends, and then its end goes out.
func (c *call) delivered(t tail, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.end(w)
	t.call = false
	c.down.finish(t, w)
}

// backendReset is told that the backend has reset the call's stream.
func (c *call) backendReset(up *stream, code http2.ErrCode, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spread != nil {
		c.spread.failed(up, "the call was reset: "+code.String(), w)
		return
	}
	if c.up != up || c.over || c.ending {
		return
	}
	switch {
	case code == http2.ErrCodeRefusedStream && c.resendable():
		c.failed(session.Declined, "refused the call", w)
	case code == http2.ErrCodeRefusedStream && !c.begun:
		c.httpCode, c.reason = 200, accesslog.BackendReset
		c.refuse(unavailable, c.Target().String()+" refused the call", w)
	default:
		c.status, c.reason, c.httpCode = -1, accesslog.BackendReset, 200
		c.finish(tail{rst: true, code: code}, w)
	}
}

// brokenBackend ends a call whose backend doesn't keep to HTTP/2.
func (c *call) brokenBackend(w *work) {
	c.httpCode, c.reason = 200, accesslog.BackendReset
	c.abort(unavailable, c.Target().String()+" broke the rules of HTTP/2", w)
}

// backendLost is told that the connection to the backend has ended. unsent: the
// call hasn't got as far.
func (c *call) backendLost(up *stream, unsent bool, err error, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	why := "closed the connection"
	reason := accesslog.BackendClosed
	if !errors.Is(err, io.EOF) {
		why, reason = "lost the connection: "+errText(err), accesslog.BackendReset
	}
	if c.spread != nil {
		c.spread.failed(up, why, w)
		return
	}
	if c.up != up || c.over || c.ending {
		return
	}
	switch {
	case unsent && c.resendable():
		c.again(why, w)
	case c.resendable() && c.safe():
		c.failed(session.Declined, why, w)
	default:
		why = c.Target().String() + " " + why
		c.httpCode, c.reason = 200, reason
		c.refuse(unavailable, why, w)
	}
}

// unprocessed is told that the backend goes away and has not seen the call.
func (c *call) unprocessed(up *stream, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const why = "goes away"
	if c.spread != nil {
		c.spread.failed(up, why, w)
		return
	}
	if c.up != up || c.over || c.ending {
		return
	}
	if c.resendable() {
		c.again(why, w)
		return
	}
	c.httpCode, c.reason = 200, accesslog.BackendClosed
	c.refuse(unavailable, c.Target().String()+" "+why, w)
}

// resendable says whether the request can go to another connection: nothing has
// been answered, and it is whole.
func (c *call) resendable() bool { return !c.begun && !c.body.lost && !c.conf().RetryOff }

// safe says whether it does no harm for a backend to get the request twice.
func (c *call) safe() bool { return c.idempotent }

// abort ends the call with an answer of ours, whatever waits to be delivered.
func (c *call) abort(code int, why string, w *work) {
	if !c.over {
		c.down.unqueue()
		c.refuse(code, why, w)
	}
}

// refuse ends the call with an answer of ours, behind what the backend has
// answered so far.
func (c *call) refuse(code int, why string, w *work) {
	if c.over {
		return
	}
	c.settle()
	t := tail{fields: c.words(code, "sluice: "+why)}
	c.status = code
	c.finish(t, w)
	if c.up != nil {
		c.up.cancel(http2.ErrCodeCancel, w)
	}
	if c.spread != nil {
		c.spread.cancel(http2.ErrCodeCancel, w)
	}
}

// words are the fields of an answer of ours: trailers-only, unless an answer has
// begun.
func (c *call) words(code int, message string) []hpack.HeaderField {
	if !c.answered && !c.grpc {
		return []hpack.HeaderField{{Name: ":status", Value: httpText(code)}, {Name: "content-length", Value: "0"}}
	}
	return statusFields(code, message, c.answered)
}

// statusFields are those of a status; trailers: of an answer that has begun.
func statusFields(code int, message string, trailers bool) []hpack.HeaderField {
	status := hpack.HeaderField{Name: "grpc-status", Value: strconv.Itoa(code)}
	text := hpack.HeaderField{Name: "grpc-message", Value: encodeMessage(message)}
	if trailers {
		return []hpack.HeaderField{status, text}
	}
	return []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}, status, text}
}

// httpText is the HTTP status of an answer to what is no gRPC.
func httpText(code int) string {
	switch code {
	case resourceExhausted:
		return "429"
	case unimplemented:
		return "501"
	}
	return "503"
}

// gone is told that the client has given the call up, or has gone itself.
func (c *call) gone(reason accesslog.EndReason, code http2.ErrCode, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if !c.ending {
		c.status = -1
	}
	c.reason, c.httpCode = reason, 200
	if reason == accesslog.Cancelled && c.late() {
		c.reason = accesslog.Deadline
	}
	if c.up != nil {
		c.body.credited = c.up.gone.get()
		c.up.cancel(code, w)
	}
	if c.spread != nil {
		c.spread.cancel(code, w)
	}
	c.end(w)
}

// late says whether the time that the client has given the call is over, as its
// own clock may have it.
func (c *call) late() bool {
	slack := max(c.timeout/50, 10*time.Millisecond)
	return c.timeout > 0 && time.Duration(c.now()-c.Begun()) >= c.timeout-slack
}

// stop ends the call for a reason of ours.
func (c *call) stop(reason accesslog.EndReason, why string, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked(reason, why, w)
}

func (c *call) stopLocked(reason accesslog.EndReason, why string, w *work) {
	if c.over || c.Settings == nil {
		return
	}
	c.reason, c.httpCode = reason, 200
	c.abort(unavailable, why, w)
}

// errText is an error without what Go puts around it.
func errText(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string { return strconv.FormatInt(n, 10) + " bytes" }
