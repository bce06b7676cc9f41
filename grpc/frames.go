// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"encoding/binary"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const frameHeader = 9

func appendFrameHeader(b []byte, n int, t http2.FrameType, flags http2.Flags, id uint32) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), byte(t), byte(flags))
	return binary.BigEndian.AppendUint32(b, id)
}

func appendReset(b []byte, id uint32, code http2.ErrCode) []byte {
	b = appendFrameHeader(b, 4, http2.FrameRSTStream, 0, id)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendWindowUpdate(b []byte, id, n uint32) []byte {
	b = appendFrameHeader(b, 4, http2.FrameWindowUpdate, 0, id)
	return binary.BigEndian.AppendUint32(b, n)
}

func appendGoAway(b []byte, last uint32, code http2.ErrCode, why string) []byte {
	b = appendFrameHeader(b, 8+len(why), http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, why...)
}

func appendPing(b []byte, ack bool, data [8]byte) []byte {
	var flags http2.Flags
	if ack {
		flags = http2.FlagPingAck
	}
	return append(appendFrameHeader(b, len(data), http2.FramePing, flags, 0), data[:]...)
}

func appendSettings(b []byte, list ...http2.Setting) []byte {
	b = appendFrameHeader(b, 6*len(list), http2.FrameSettings, 0, 0)
	for _, s := range list {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

func appendSettingsAck(b []byte) []byte {
	return appendFrameHeader(b, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}

// encode is these fields as a header block, good until the next. Blocks are sent
// in the order in which they are encoded. Under l.mu.
func (l *link) encode(fields []hpack.HeaderField) []byte {
	l.encoded.Reset()
	for i := range fields {
		_ = l.enc.WriteField(fields[i]) // a bytes.Buffer takes all
	}
	return l.encoded.Bytes()
}

// appendHeaders appends a header block as HEADERS and what CONTINUATION it takes.
func appendHeaders(b []byte, id uint32, block []byte, end bool, most int) []byte {
	t, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for {
		part := block[:min(len(block), most)]
		if block = block[len(part):]; len(block) == 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		b = append(appendFrameHeader(b, len(part), t, flags, id), part...)
		if len(block) == 0 {
			return b
		}
		t, flags = http2.FrameContinuation, 0
	}
}

// putHeaders queues HEADERS. Under l.mu.
func (l *link) putHeaders(id uint32, fields []hpack.HeaderField, end bool) {
	l.ctl = appendHeaders(l.ctl, id, l.encode(fields), end, l.frame)
}
