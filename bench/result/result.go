// SPDX-License-Identifier: Apache-2.0

// Package result holds what was measured, and what follows from it.
package result

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Version is that of the file's form.
const Version = 1

// Run is one run of the bench.
type Run struct {
	Version    int         `json:"version"`
	Mode       string      `json:"mode"` // full, quick, one, compare
	Started    time.Time   `json:"started"`
	Seconds    float64     `json:"seconds"`
	Commit     string      `json:"commit"`
	Machine    Machine     `json:"machine"`
	Contenders []Contender `json:"contenders"`
	Series     []*Series   `json:"series"`
	Notes      []string    `json:"notes,omitempty"`
}

// Machine describes where it was measured.
type Machine struct {
	CPU         string  `json:"cpu"`
	Cores       int     `json:"cores"`
	MemoryGiB   float64 `json:"memory_gib"`
	Kernel      string  `json:"kernel"`
	OS          string  `json:"os"`
	Hypervisor  string  `json:"hypervisor,omitempty"`
	Mitigations string  `json:"mitigations,omitempty"` // how many the kernel lists as active
	Congestion  string  `json:"congestion,omitempty"`  // TCP's congestion control on all hosts
	Go          string  `json:"go"`
	Load        string  `json:"load"`      // load averages before the run
	IdleBusy    float64 `json:"idle_busy"` // cores busy before the run
}

// Contender names one and its version.
type Contender struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

// Series is a workload and its samples.
type Series struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	Metric  string   `json:"metric"` // the main one
	Unit    string   `json:"unit"`
	More    bool     `json:"more"`             // more is better
	Beside  string   `json:"beside,omitempty"` // the series that this one repeats under another congestion control
	Extra   []Metric `json:"extra,omitempty"`
	Samples []Sample `json:"samples"`
}

// Metric is a further figure of a workload.
type Metric struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
}

// Sample is one measurement of one contender.
type Sample struct {
	Round     int                `json:"round"`
	Contender string             `json:"contender"`
	Values    map[string]float64 `json:"values,omitempty"`
	Marks     []string           `json:"marks,omitempty"` // limits of the harness that it hit
	Error     string             `json:"error,omitempty"` // it counts for nothing then
	Cuts      *Cuts              `json:"cuts,omitempty"`  // of a contender that hands sessions over
}

// Find is the series of that name, nil if there is none.
func (r *Run) Find(name string) *Series {
	for _, s := range r.Series {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Save writes the run into dir, under its date, and tells the path.
func (r *Run) Save(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", err
	}
	name := r.Started.UTC().Format("2006-01-02T1504")
	if r.Mode != "full" {
		name += "-" + r.Mode
	}
	path := filepath.Join(dir, name+".json")
	return path, os.WriteFile(path, append(data, '\n'), 0o644)
}

// Load reads a run.
func Load(path string) (*Run, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Run{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != Version {
		return nil, fmt.Errorf("%s: version %d of the form, this bench reads version %d", path, r.Version, Version)
	}
	return r, nil
}
