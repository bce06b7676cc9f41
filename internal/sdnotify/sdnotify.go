// SPDX-License-Identifier: Apache-2.0

// Package sdnotify tells the service manager what the process is up to
// (sd_notify(3)). Without NOTIFY_SOCKET every call does nothing.
package sdnotify

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// Notifier sends to one service manager. The zero Notifier sends nowhere.
type Notifier struct{ socket string }

// New takes the value of NOTIFY_SOCKET; empty: there is no manager.
func New(socket string) Notifier { return Notifier{socket} }

// Ready says that start-up, or a reload, is over.
func (n Notifier) Ready(status string) error { return n.send("READY=1", "STATUS="+status) }

// Reloading says that a reload begins; Ready ends it. The timestamp is what
// Type=notify-reload asks for.
func (n Notifier) Reloading() error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return fmt.Errorf("notifying the service manager: CLOCK_MONOTONIC: %w", err)
	}
	return n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/1000))
}

// Stopping says that the process drains and will end.
func (n Notifier) Stopping(status string) error { return n.send("STOPPING=1", "STATUS="+status) }

func (n Notifier) send(lines ...string) error {
	if n.socket == "" {
		return nil
	}
	addr := n.socket
	switch addr[0] {
	case '/', '@':
	default:
		return fmt.Errorf("notifying the service manager: NOTIFY_SOCKET is %q, want an absolute path or @name", addr)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notifying the service manager: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("notifying the service manager: %w", err)
	}
	return nil
}
