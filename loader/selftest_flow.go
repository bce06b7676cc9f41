// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// boundTotal is what stepBound sends in all, boundMost how much of it may
	// leave the client while nobody reads: the mark, one skb over it, and the
	// buffers of four sockets, all with the kernel's own bookkeeping.
	boundTotal = 2 << 20
	boundMost  = 1 << 20
	// closeTotal is what stepHalfClose sends.
	closeTotal = 384 << 10
)

// stepBound: a server that doesn't read holds the client up; once it reads,
// all bytes arrive in order, and the kernel moves the next ones again.
func stepBound(r *rig) (string, error) {
	base, err := taken(r.back)
	if err != nil {
		return "", err
	}
	if err := r.add(); err != nil {
		return "", err
	}
	data := pattern(boundTotal)
	sent, err := r.fill(data)
	if err != nil {
		return "", err
	}
	if sent > boundMost {
		return "", fmt.Errorf("a client sent %d bytes to a server that doesn't read: nothing holds it up", sent)
	}
	h := r.direction(0)
	if h.Passed() == 0 {
		return "", errors.New("nothing was passed over the mark")
	}
	p := pump{rig: r, base: base, sent: sent, want: data}
	for to := boundTotal / 4; to <= boundTotal; to += boundTotal / 4 {
		if err := p.run(data[:to]); err != nil {
			return "", err
		}
		if h.Redirected()+h.Passed() != uint64(p.sent) || h.Passed() != h.Forwarded() {
			return "", fmt.Errorf("counted %d redirected, %d passed, %d forwarded of %d bytes", h.Redirected(), h.Passed(), h.Forwarded(), p.sent)
		}
	}
	before := h.Redirected()
	if err := r.move(r.client, r.server, data[:100]); err != nil {
		return "", fmt.Errorf("after the hand-back: %w", err)
	}
	if h.Redirected() != before+100 {
		return "", errors.New("the kernel never took over again")
	}
	return fmt.Sprintf("held at %d bytes; %d redirected, %d passed, in order", sent, before, h.Passed()), nil
}

// fill sends until the client has been held up for a while.
func (r *rig) fill(data []byte) (int, error) {
	sent := 0
	for sent < len(data) {
		n, err := unix.Write(r.client, data[sent:min(len(data), sent+smallBuf)])
		switch {
		case err == nil:
			sent += n
		case !errors.Is(err, unix.EAGAIN):
			return sent, fmt.Errorf("sending: %w", err)
		case r.ready(r.client, unix.POLLOUT, 2*settle) == 0:
			if r.direction(0).Passed() > 0 || time.Now().After(r.deadline) {
				return sent, nil
			}
		}
	}
	return sent, nil
}

// pump is userspace's part while bytes go to a server that reads.
type pump struct {
	*rig
	base    uint64 // of taken(back)
	sent    int    // by the client
	got     []byte // by the server
	want    []byte // what it has to be
	held    []byte // passed, and not taken by the back socket yet
	forward uint64
}

// run goes on until all of data is at the server, or sent if that is more.
func (p *pump) run(data []byte) error {
	for len(p.got) < max(p.sent, len(data)) {
		if time.Now().After(p.deadline) {
			h := p.direction(0)
			return fmt.Errorf("%d of %d bytes came, %d redirected, %d passed, %d forwarded: %w", len(p.got), len(data), h.Redirected(), h.Passed(), h.Forwarded(), errLate)
		}
		idle := true
		if p.sent < len(data) {
			if n, _ := unix.Write(p.client, data[p.sent:]); n > 0 {
				p.sent, idle = p.sent+n, false
			}
		}
		moved, err := p.forwardSome()
		if err != nil {
			return err
		}
		got, err := p.check()
		if err != nil {
			return err
		}
		if idle && !moved && !got {
			time.Sleep(100 * time.Microsecond)
		}
	}
	return nil
}

// forwardSome reads what was passed, and writes it once nothing waits before
// it: redirected bytes reach the socket by a queue that a write would overtake.
func (p *pump) forwardSome() (bool, error) {
	buf := make([]byte, 64<<10)
	moved := false
	if len(p.held) == 0 {
		if n, _ := unix.Read(p.front, buf); n > 0 {
			p.held, moved = append(p.held, buf[:n]...), true
		}
	}
	if len(p.held) == 0 {
		return moved, nil
	}
	h := p.direction(0)
	if w, err := taken(p.back); err != nil {
		return moved, err
	} else if w-p.base < h.Redirected()+p.forward && !p.s.rules.noTurn {
		return moved, nil
	}
	if n, _ := unix.Write(p.back, p.held); n > 0 {
		p.held = p.held[:copy(p.held, p.held[n:])]
		p.forward += uint64(n)
		h.SetForwarded(p.forward)
		moved = true
	}
	return moved, nil
}

// check reads at the server and compares with what was sent.
func (p *pump) check() (bool, error) {
	buf := make([]byte, 64<<10)
	n, _ := unix.Read(p.server, buf)
	if n <= 0 {
		return false, nil
	}
	if err := same(buf[:n], p.want[len(p.got):len(p.got)+n]); err != nil {
		return false, fmt.Errorf("out of order after byte %d: %w", len(p.got), err)
	}
	p.got = append(p.got, buf[:n]...)
	return true, nil
}

// stepHalfClose: a FIN handed on when the counters say so cuts nothing off.
func stepHalfClose(r *rig) (string, error) {
	base, err := taken(r.back)
	if err != nil {
		return "", err
	}
	if err := r.add(); err != nil {
		return "", err
	}
	h := r.direction(0)
	h.SetMark(2 * closeTotal) // so that the kernel's queue holds most of it
	data := pattern(closeTotal)
	if err := r.send(r.client, data); err != nil {
		return "", err
	}
	if err := unix.Shutdown(r.client, unix.SHUT_WR); err != nil {
		return "", err
	}
	// The end may be known before the last bytes went through the verdict.
	if err := r.until(func() bool { return h.Redirected()+h.Passed() == closeTotal }); err != nil {
		return "", fmt.Errorf("%d of %d bytes went through the verdict: %w", h.Redirected()+h.Passed(), closeTotal, err)
	}
	if err := r.wait(r.front, unix.POLLRDHUP); err != nil {
		return "", fmt.Errorf("the end of the stream isn't reported: %w", err)
	}
	done := func() bool {
		n, err := taken(r.back)
		return err == nil && n-base >= h.Redirected()
	}
	if done() {
		return "", errors.New("the counters say that all was sent while nobody reads")
	}
	got := make([]byte, 0, closeTotal)
	shut := r.s.rules.noWait
	if shut {
		_ = unix.Shutdown(r.back, unix.SHUT_WR)
	}
	for len(got) < closeTotal {
		if err := r.wait(r.server, unix.POLLIN); err != nil {
			return "", fmt.Errorf("%d of %d bytes came: %w", len(got), closeTotal, err)
		}
		n, err := unix.Read(r.server, got[len(got):min(closeTotal, len(got)+smallBuf)])
		if err == nil && n == 0 {
			return "", fmt.Errorf("cut off after %d of %d bytes", len(got), closeTotal)
		}
		got = got[:len(got)+max(n, 0)]
		if !shut && done() {
			shut = true
			if err := unix.Shutdown(r.back, unix.SHUT_WR); err != nil {
				return "", err
			}
		}
	}
	if err := same(got, data); err != nil {
		return "", err
	}
	if !shut {
		if err := r.until(done); err != nil {
			return "", fmt.Errorf("the counters never say that all was sent: %w", err)
		}
		if err := unix.Shutdown(r.back, unix.SHUT_WR); err != nil {
			return "", err
		}
	}
	if rest, err := r.receive(r.server, 1); err != nil || len(rest) != 0 {
		return "", fmt.Errorf("the end of the stream: %d bytes more, %v", len(rest), err)
	}
	return fmt.Sprintf("all of %d bytes, then the end", closeTotal), nil
}
