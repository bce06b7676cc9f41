// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Defaults of a file's top level.
const (
	DefaultStatsPort    = 9585
	DefaultDrainTimeout = 30 * time.Second
	DefaultLogLevel     = "info"
)

// maxInt bounds counts that have no bound of their own.
const maxInt = 1<<31 - 1

// ReadFile loads the file at path. Its error is Errors; with errors.Is it tells
// a missing file, fs.ErrNotExist. Nothing stays open.
func ReadFile(path string) (*Config, error) {
	data, err := read(path)
	if err == nil {
		return Load(path, data)
	}
	why, cause := err.Error(), error(nil)
	if cause = errors.Unwrap(err); cause != nil {
		why = cause.Error()
	}
	advice := "must be a file that may be read"
	if errors.Is(err, fs.ErrNotExist) {
		advice = "must be there: write it, or name another with -c"
	}
	return nil, Errors{{File: path, Line: 1, Column: 1, Msg: fmt.Sprintf("can't read the file: %s, %s", why, advice), Err: err}}
}

// read takes one byte more than Load accepts at most, so that Load sees it.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileBytes+1))
}

// Load decodes and validates the content of a backends.yaml; file is only its
// name in messages. Its error is Errors, with everything that is wrong.
func Load(file string, data []byte) (*Config, error) {
	c, bad := load(data)
	if len(bad) == 0 {
		c.File = file
		return c, nil
	}
	all := make(Errors, len(bad))
	for i, p := range bad {
		all[i] = &Error{File: file, Line: p.pos.Line, Column: p.pos.Column, Msg: p.msg}
	}
	return nil, all.sorted()
}

func load(data []byte) (*Config, []problem) {
	doc, bad := parse(data)
	if bad != nil {
		return nil, bad
	}
	root := &node{}
	conv := converter{anchors: map[string]*node{}}
	if doc != nil {
		root = conv.value(doc.Body, Position{1, 1})
	}
	if root.kind == nullKind && conv.bad == nil {
		return nil, []problem{{Position{1, 1}, "the file is empty, must have a listener at least: see listeners"}}
	}
	d := &decoder{bad: conv.bad}
	c := d.root(root)
	if d.visited > maxValues || conv.merged > maxValues {
		return nil, []problem{{Position{1, 1}, fmt.Sprintf("more than %d values with all aliases and port ranges expanded, must be fewer", maxValues)}}
	}
	return c, d.bad
}

// root reads the file's top level, then checks what concerns several parts.
func (d *decoder) root(n *node) *Config {
	c := &Config{
		Stats:        Stats{Address: defaultStats(), Pos: Position{1, 1}},
		Log:          Log{Level: DefaultLogLevel},
		DrainTimeout: DefaultDrainTimeout,
		Forward:      Forward{MaxFlows: DefaultMaxFlows, Pos: Position{1, 1}},
	}
	listenersAt := Position{1, 1}
	var inline []inlinePool
	var refs []poolRef
	d.fields(n, "the file", []field{
		{"access_log", func(p pair) { c.AccessLog = d.accessLog(p) }},
		{"stats", func(p pair) { d.stats(p, &c.Stats) }},
		{"forward", func(p pair) { d.forward(p, &c.Forward) }},
		{"log", func(p pair) {
			d.fields(p.value, "log", []field{
				{"level", func(p pair) { choice(d, p, &c.Log.Level, "trace", "debug", "info", "warn", "error") }},
			})
		}},
		{"drain_timeout", func(p pair) { d.duration(p, "no waiting", 1, maxDuration, &c.DrainTimeout) }},
		{"event_loops", func(p pair) { d.integer(p, 0, 1024, &c.EventLoops) }},
		{"pools", func(p pair) { c.Pools = d.pools(p) }},
		{"listeners", func(p pair) {
			listenersAt = p.keyPos
			d.list(p, "listeners, each with name and listen", func(n *node) {
				l, own := d.listener(n)
				c.Listeners = append(c.Listeners, l)
				if own != nil {
					inline = append(inline, inlinePool{l, own})
				} else if at := n.get("pool"); at != nil && l.Pool != "" {
					refs = append(refs, poolRef{l.Pool, at.value.pos})
				}
				refs = append(refs, l.GRPC.refs()...)
			})
		}},
	})
	at := n.get("listeners")
	if n.kind == mapKind && len(c.Listeners) == 0 && (at == nil || at.value.kind == nullKind || at.value.kind == listKind) {
		d.fail(listenersAt, "no listener, must have one at least under listeners")
	}
	d.resolve(c, inline)
	if at := n.get("pools"); at == nil || at.value.kind == mapKind || at.value.kind == nullKind {
		d.checkPools(c, refs)
	}
	d.overlaps(c)
	return c
}

func defaultStats() Address {
	a, err := ParseListen(fmt.Sprintf("127.0.0.1:%d", DefaultStatsPort))
	if err != nil {
		panic(err) // a constant
	}
	return a
}

// accessLog reads the access_log of the top level.
func (d *decoder) accessLog(p pair) *AccessLog {
	if isOff(p.value) {
		return nil
	}
	a := &AccessLog{Format: FormatProxy, Pos: p.keyPos}
	if p.value.kind == textKind {
		d.fail(p.value.pos, "access_log is %s, must be a mapping with path, or off", describe(p.value))
		return a
	}
	d.fields(p.value, "access_log", []field{
		{"path", func(p pair) { a.Path, _ = d.text(p.value, "path", `a file's path, or "-" for stdout`) }},
		{"format", func(p pair) { d.format(p, a) }},
	})
	if p.value.kind != listKind && !p.value.has("path") {
		d.fail(p.keyPos, `access_log has no path, must have a file's path, or "-" for stdout`)
	}
	return a
}

// stats reads the address of the statistics endpoint.
func (d *decoder) stats(p pair, into *Stats) {
	into.Pos, into.Explicit = p.value.pos, true
	if into.Off = isOff(p.value); into.Off {
		into.Address = Address{}
		return
	}
	s, ok := d.text(p.value, "stats", "ip:port, unix:/path or off")
	if !ok {
		return
	}
	a, err := ParseListen(s)
	if err != nil {
		d.fail(p.value.pos, "stats address %s: %v, or off", quote(s), err)
		return
	}
	into.Address = a
}
