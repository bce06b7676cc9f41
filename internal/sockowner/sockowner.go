// SPDX-License-Identifier: Apache-2.0

// Package sockowner finds out who listens on an address, as `ss -lp` does,
// from /proc. A process of another user's is only seen with the right to look
// into its descriptors (root, CAP_SYS_PTRACE).
package sockowner

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Socket is one that listens.
type Socket struct {
	Addr  netip.AddrPort // unmapped; not valid for a unix socket
	Path  string         // of a unix socket
	Inode uint64
}

// Listening lists the listening TCP and unix sockets of the calling thread's
// network namespace. A table that can't be read (IPv6 is off) counts as empty.
func Listening() []Socket {
	var out []Socket
	for _, t := range []struct {
		file  string
		parse func(line string) (Socket, bool)
	}{{"tcp", parseTCP}, {"tcp6", parseTCP}, {"unix", parseUnix}} {
		f, err := os.Open("/proc/thread-self/net/" + t.file)
		if err != nil {
			continue
		}
		out = append(out, parseTable(f, t.parse)...)
		f.Close()
	}
	return out
}

func parseTable(r io.Reader, parse func(string) (Socket, bool)) []Socket {
	var out []Socket
	for s := bufio.NewScanner(r); s.Scan(); {
		if sock, ok := parse(s.Text()); ok {
			out = append(out, sock)
		}
	}
	return out
}

// tcpListen is TCP_LISTEN of include/net/tcp_states.h, as the table writes it.
const tcpListen = "0A"

// parseTCP reads a line of /proc/net/tcp or tcp6: slot, local address, remote
// address, state, six more, inode.
func parseTCP(line string) (Socket, bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != tcpListen {
		return Socket{}, false
	}
	addr, ok := parseAddr(f[1])
	inode, err := strconv.ParseUint(f[9], 10, 64)
	return Socket{Addr: addr, Inode: inode}, ok && err == nil
}

// parseAddr reads an address as 32-bit words in the host's order, a port
// behind: 0100007F:1F90 is 127.0.0.1:8080 where the lowest byte comes first.
func parseAddr(s string) (netip.AddrPort, bool) {
	words, portText, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(words)
	port, portErr := strconv.ParseUint(portText, 16, 16)
	if err != nil || portErr != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), true
}

// acceptsConnections is __SO_ACCEPTCON of include/uapi/linux/net.h.
const acceptsConnections = 1 << 16

// parseUnix reads a line of /proc/net/unix: slot, references, protocol, flags,
// type, state, inode, path.
func parseUnix(line string) (Socket, bool) {
	f := strings.SplitN(strings.TrimLeft(line, " "), " ", 2)
	if len(f) < 2 {
		return Socket{}, false
	}
	rest := strings.Fields(f[1])
	if len(rest) < 7 {
		return Socket{}, false
	}
	flags, err := strconv.ParseUint(rest[2], 16, 64)
	inode, inodeErr := strconv.ParseUint(rest[5], 10, 64)
	if err != nil || inodeErr != nil || flags&acceptsConnections == 0 {
		return Socket{}, false
	}
	// The path is the rest of the line, blanks in it included.
	_, path, _ := strings.Cut(f[1], " "+rest[5]+" ")
	return Socket{Path: path, Inode: inode}, path != ""
}

// Owner returns a process that has one of these sockets, the lowest number
// first; 0: none that can be seen.
func Owner(inodes map[uint64]bool) (pid int) {
	if len(inodes) == 0 {
		return 0
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		n, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && (pid == 0 || n < pid) && hasSocket(dir+"/fd", inodes) {
			pid = n
		}
	}
	return pid
}

func hasSocket(dir string, inodes map[uint64]bool) bool {
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false // gone, or not ours to look into
	}
	for _, fd := range fds {
		link, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue
		}
		digits, isSocket := strings.CutPrefix(link, "socket:[")
		inode, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 64)
		if isSocket && err == nil && inodes[inode] {
			return true
		}
	}
	return false
}
