// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
)

// logFile is the access log's name in the instance's directory.
const logFile = "access.log"

// hostPorts is ip_local_port_range where sluice has ports of its own toward the
// backends, which are those above 10239 that the host doesn't use itself.
const hostPorts = "1024 10239"

// Sluice is a variant of sluice: a program and the datapath in its file. The one
// that hands sessions over has a log, which alone tells when it did.
func Sluice(name, path, datapath string) *Contender {
	return &Contender{Name: name, Program: path, template: "sluice.yaml.tmpl", config: "backends.yaml", datapath: datapath,
		Log: datapath == "offload", ownPorts: datapath == "offload" || datapath == "auto", update: editSluice,
		args: func(config string) []string { return []string{"run", "-c", config} }}
}

// editSluice renames a new file into place; it is done when the statistics say so.
func editSluice(in *Instance, ctx context.Context, backends []netip.Addr) error {
	before, err := loadedAt(in)
	if err != nil {
		return err
	}
	if err := in.write(backends); err != nil {
		return err
	}
	return wait(ctx, "sluice: the edit did not show up in its statistics", func() (bool, error) {
		now, err := loadedAt(in)
		return now != before, err
	})
}

func loadedAt(in *Instance) (string, error) {
	s, err := in.stats()
	if err == nil && !s.Config.OK {
		err = fmt.Errorf("sluice refused its file: %s", s.Config.Error)
	}
	return string(s.Config.LoadedAt), err
}

// sluiceStats is what is read of sluice's statistics.
type sluiceStats struct {
	PID    int `json:"pid"`
	Config struct {
		OK       bool            `json:"ok"`
		Error    string          `json:"error"`
		LoadedAt json.RawMessage `json:"loaded_at"`
	} `json:"config"`
	AccessLog struct {
		Lines   uint64 `json:"lines"`
		Dropped uint64 `json:"dropped"`
	} `json:"access_log"`
	Listeners []struct {
		Active    int64             `json:"active"`
		Total     uint64            `json:"total"`
		Fallbacks map[string]uint64 `json:"fallbacks"`
	} `json:"listeners"`
}

func (in *Instance) stats() (s sluiceStats, err error) {
	client := http.Client{Timeout: updateLimit, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(in.Dir, "sluice.sock"))
		}}}
	resp, err := client.Get("http://sluice/stats")
	if err != nil {
		return s, fmt.Errorf("sluice: statistics: %w", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("sluice: statistics: %w", err)
	}
	return s, nil
}
