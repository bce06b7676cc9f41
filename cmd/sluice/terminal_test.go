// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTerminalWidth: tables fit the terminal, by its own word or by COLUMNS, and
// are whole in a pipe.
func TestTerminalWidth(t *testing.T) {
	addr, stop := serve(t)
	defer stop()
	master, slave := pty(t)
	for _, c := range []struct {
		cols    uint16
		columns string
		want    int // 0: whole
	}{{80, "", 80}, {200, "40", 0}, {0, "80", 80}, {0, "", 0}, {0, "wide", 0}} {
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: c.cols}); err != nil {
			t.Fatal(err)
		}
		e := env{stdin: strings.NewReader(""), stdout: slave, stderr: slave, getenv: func(string) string { return c.columns }}
		if code := runIn(e, []string{"sluice", "status", "--stats", addr}); code != 0 {
			t.Fatalf("exit %d", code)
		}
		fmt.Fprintln(slave, "END")
		var out bytes.Buffer
		buf := make([]byte, 4096)
		for !strings.Contains(out.String(), "END") {
			if err := master.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Log(err)
			}
			n, err := master.Read(buf)
			if err != nil {
				t.Fatalf("%v: %q", err, out.String())
			}
			out.Write(buf[:n])
		}
		widest := 0
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "LISTENER") || strings.Contains(line, "BACKEND") {
				widest = max(widest, len([]rune(strings.TrimRight(line, "\r\n"))))
			}
		}
		if whole := strings.Contains(out.String(), "BALANCE"); whole != (c.want == 0) || c.want > 0 && widest > c.want {
			t.Errorf("%d columns, COLUMNS=%q: the widest head has %d, whole: %v\n%s", c.cols, c.columns, widest, whole, out.String())
		}
	}
}

// pty is a terminal's two ends.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}
