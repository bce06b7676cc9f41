// SPDX-License-Identifier: Apache-2.0

// Package peers holds the configurations of those that sluice is measured
// beside, as templates, and of sluice itself.
package peers

import (
	"embed"
	"fmt"
	"net/netip"
	"os"
	"text/template"
)

//go:embed *.tmpl
var files embed.FS

// Values is what a template may use.
type Values struct {
	Dir      string // for sockets and logs
	Workers  int    // processes or threads: one for each core
	Front    netip.Addr
	Services []Service
	Datapath string // of sluice
	Log      string // of sluice: path of its access log; empty: none
	Module   string // nginx: path of the stream module; empty when it is built in
	MaxConns int    // sessions that may be open at once

	Flowtable bool // nft: with a flow table
}

// Service is one front port and its backends.
type Service struct {
	Name     string
	Port     int
	Backends []Backend
	Stream   bool // half-closed at the end, and only then
}

// Backend is one server of a service.
type Backend struct {
	Name string
	Addr netip.AddrPort
}

// Write fills the template of that name into a file.
func Write(name, path string, v Values) error {
	tmpl, err := template.ParseFS(files, name)
	if err != nil {
		return fmt.Errorf("template %s: %w", name, err)
	}
	// Renamed into place: whoever watches the file sees a whole one.
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	if err := tmpl.Execute(f, v); err != nil {
		_ = f.Close()
		return fmt.Errorf("template %s: %w", name, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
