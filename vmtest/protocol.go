// SPDX-License-Identifier: Apache-2.0

package vmtest

// Names of the virtio ports between host and guest.
const (
	portControl = "sl-control"
	portOut     = "sl-out"
	portErr     = "sl-err"
)

// guestSpec is what process 1 is told, in a file of the initramfs.
type guestSpec struct {
	Command []string
	Dir     string
	Env     []string
	// Modules are loaded in this order.
	Modules []guestModule
	// Split: standard error has a port of its own. One port for both keeps their
	// order when the host sends both to the same place.
	Split bool
	// Marker ends the output on each port.
	Marker string
	// Bring are files to send home after the program ended, by absolute path.
	Bring []string
	// Shell: no ports; the program gets the terminal, and its end ends the guest.
	Shell bool
}

// guestModule is a kernel module in the initramfs.
type guestModule struct{ Path, Params string }

// Events that the guest sends, one JSON object each, on the control port.
const (
	eventReady = "ready" // the program is about to start
	eventFile  = "file"  // a file of Bring
	eventExit  = "exit"  // the program ended and its output is in; the last one
	eventError = "error" // the guest could not start it; the last one
)

type event struct {
	Kind    string
	Release string `json:",omitempty"` // ready: uname -r
	Path    string `json:",omitempty"` // file
	Data    []byte `json:",omitempty"` // file
	Code    int    `json:",omitempty"` // exit: exit code, 128+n for signal n
	Signal  string `json:",omitempty"` // exit: the signal's name
	Taint   uint64 `json:",omitempty"` // exit: bits of /proc/sys/kernel/tainted set while it ran
	Text    string `json:",omitempty"` // error
}

// orderDump is what the host sends at a timeout: the guest has the kernel log the
// blocked tasks, and sends the program SIGQUIT, which makes Go print its goroutines.
const orderDump = "dump\n"

// Bits of /proc/sys/kernel/tainted that fail a run: an oops, a warning.
const taintBad = 1<<7 | 1<<9
