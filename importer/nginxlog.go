// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"path/filepath"
	"strings"

	"sluice/config"
)

// logs gathers nginx's access logs: sluice has one file and one format, and
// each listener writes to it or doesn't.
type logs struct {
	formats map[string]*directive
	kept    *directive // the access_log that becomes sluice's
}

func (l *logs) format(d *directive) {
	if l.formats == nil {
		l.formats = map[string]*directive{}
	}
	l.formats[d.arg(0)] = d
}

// server takes the access_log directives that hold for a listener.
func (l *logs) server(w *work, front *listener, all []*directive) {
	written := false
	for _, d := range all {
		switch path := d.arg(0); {
		case path == "off":
			written = false
		case path == "", strings.HasPrefix(path, "syslog:"), strings.Contains(path, "$"):
			w.lose(d, "sluice logs to one file, by a fixed name")
		case l.kept == nil:
			l.kept, written = d, true
			l.options(w, d)
		case l.kept.arg(0) != path || l.kept.arg(1) != d.arg(1):
			w.lose(d, "sluice has one access log, "+printable(l.kept.arg(0))+" here, and one format; these sessions go there")
			written = true
		default:
			written = true
		}
	}
	if !written {
		front.log = "off"
	}
}

// options says what of an access_log's options is lost.
func (l *logs) options(w *work, d *directive) {
	for _, o := range d.args[min(2, len(d.args)):] {
		switch name, v := option(o); name {
		case "if":
			w.lose(d, "sluice logs all sessions of a listener, whatever "+printable(v)+" says")
		case "gzip":
			w.lose(d, "sluice doesn't compress its log")
		case "buffer", "flush":
			w.say(d.at, "access_log ... "+o, "sluice writes each line within 200 ms")
		default:
			w.say(d.at, "access_log ... "+o, "has no counterpart in sluice")
		}
	}
}

// settle writes the log into the file, once all servers are known.
func (l *logs) settle(w *work) {
	if l.kept == nil {
		for _, front := range w.out.listeners {
			front.log = "" // no file, no switch
		}
		return
	}
	path := l.kept.arg(0)
	switch path {
	case "/dev/stdout":
		path = "-"
	default:
		if !filepath.IsAbs(path) {
			w.lose(l.kept, "a path below nginx's prefix, which isn't known here; write it in full")
		}
	}
	w.out.accessLog = &accessLog{path: singleLine(path), format: l.template(w)}
}

// template is the kept log's format, as sluice can have it.
func (l *logs) template(w *work) string {
	name := l.kept.arg(1)
	d := l.formats[name]
	if d == nil {
		w.lose(l.kept, "a format that no log_format of stream {} defines; sluice's proxy is used")
		return config.FormatProxy
	}
	parts := d.args[min(1, len(d.args)):]
	if len(parts) > 0 && strings.HasPrefix(parts[0], "escape=") {
		if parts[0] != "escape=default" {
			w.say(d.at, "log_format "+name+" "+parts[0], `sluice escapes as "escape=default" does; its format json is one object a line`)
		}
		parts = parts[1:]
	}
	whole := strings.Join(parts, "")
	if s := singleLine(whole); s != whole {
		w.say(d.at, "log_format "+name, "a line of sluice's log has no line break and no control character in it; blanks are used")
		whole = s
	}
	pieces, err := config.ParseFormat(config.FormatProxy)
	if err == nil && sameText(whole, pieces) {
		return config.FormatProxy
	}
	return l.known(w, d, whole)
}

// known replaces the variables that sluice doesn't have.
func (l *logs) known(w *work, d *directive, format string) string {
	var b strings.Builder
	variables := 0
	for format != "" {
		at := strings.IndexByte(format, '$')
		if at < 0 {
			b.WriteString(format)
			break
		}
		b.WriteString(format[:at])
		format = format[at+1:]
		inner, braced := strings.CutPrefix(format, "{")
		n := len(inner) - len(strings.TrimLeft(inner, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"))
		name, rest := inner[:n], inner[n:]
		if braced {
			rest = strings.TrimPrefix(rest, "}")
		}
		format = rest
		if config.KnownVariable(name) {
			b.WriteString("${" + name + "}")
			variables++
			continue
		}
		w.say(d.at, "log_format "+d.arg(0)+" $"+name, `a variable that sluice doesn't have; "-" is written for it`)
		b.WriteByte('-')
	}
	if variables == 0 {
		w.lose(d, "without a variable that sluice has; its format proxy is used")
		return config.FormatProxy
	}
	return unbrace(b.String())
}

// unbrace writes $name for ${name} where what follows can't be taken for a part
// of the name.
func unbrace(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		if after != "" && (after[0] == '_' || '0' <= after[0] && after[0] <= '9' || 'a' <= after[0]|0x20 && after[0]|0x20 <= 'z') {
			b.WriteString("${" + name + "}")
		} else {
			b.WriteString("$" + name)
		}
		s = after
	}
}

// sameText tells whether a template is these pieces.
func sameText(s string, pieces []config.Piece) bool {
	got, err := config.ParseFormat(s)
	if err != nil || len(got) != len(pieces) {
		return false
	}
	for i := range got {
		if got[i] != pieces[i] {
			return false
		}
	}
	return true
}

// singleLine is text that sluice takes as a value: without control characters.
func singleLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7F && r < 0xA0 || strings.ContainsRune("\u2028\u2029\uFEFF\uFFFE\uFFFF", r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
