// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"sluice/vmtest"
	"sluice/vmtest/expect"
)

// job is a program to run on each kernel.
type job struct {
	name    string
	dir     string
	command []string
	files   map[string]string
	// isTest: its output is that of a test binary. Else what `sluice doctor` and
	// `sluice selftest` say, whose exit code is an answer and not a failure.
	isTest bool
}

// build compiles the suites once and, if asked to, sluice itself for its own
// judgement of a kernel.
func build(ctx context.Context, tmp string, suites [][]string, sluice bool) ([]job, error) {
	var jobs []job
	for _, suite := range suites {
		s := suite[0]
		dir, err := filepath.Abs(s)
		if err != nil {
			return nil, err
		}
		bin := filepath.Join(tmp, strings.Trim(strings.ReplaceAll(s, "/", "-"), ".-")+".test")
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", bin, s)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("compile the tests of %s: %w\n%s", s, err, out)
		}
		if _, err := os.Stat(bin); err != nil {
			fmt.Printf("%s has no tests\n", s)
			continue
		}
		jobs = append(jobs, job{name: s, dir: dir, command: append([]string{bin}, suite[1:]...), isTest: true})
	}
	if !sluice {
		return jobs, nil
	}
	return buildSluice(ctx, tmp, jobs)
}

func buildSluice(ctx context.Context, tmp string, jobs []job) ([]job, error) {
	bin := filepath.Join(tmp, "sluice")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/sluice")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile sluice: %w\n%s", err, out)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		return nil, err
	}
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return append(jobs, job{
		name: "sluice", dir: root, files: map[string]string{"/usr/local/bin/sluice": bin},
		command: []string{sh, "-c", "sluice doctor; echo doctor exits $?; sluice selftest; echo selftest exits $?"},
	}), nil
}

// onKernel runs every job on one kernel.
func onKernel(ctx context.Context, cache *vmtest.Cache, o *options, name string, jobs []job) (row, error) {
	kernel, err := vmtest.Find(cache, name, "", o.refresh)
	if err != nil {
		return row{}, err
	}
	r := row{kernel: name, version: kernel.Version, features: map[string]expect.Feature{}}
	for _, j := range jobs {
		var out bytes.Buffer
		s := &vmtest.Spec{
			Kernel: kernel, Command: j.command, Dir: j.dir, Env: vmtest.PassedOn(os.Environ()), Files: j.files,
			Memory: 2048, CPUs: 2, Timeout: o.timeout + 30*time.Second, Stdout: &out,
		}
		if j.isTest {
			s.Command = append(slices.Clone(s.Command), "-test.v", "-test.timeout="+o.timeout.String())
		}
		res, err := vmtest.Run(ctx, cache, s)
		if err != nil {
			return row{}, err
		}
		if ctx.Err() != nil {
			return row{}, ctx.Err()
		}
		fmt.Fprintln(&out, res.Trouble)
		log := filepath.Join(o.logs, name+"-"+strings.Trim(strings.ReplaceAll(j.name, "/", "-"), ".-")+".log")
		if err := os.WriteFile(log, out.Bytes(), 0o644); err != nil {
			return row{}, err
		}
		c := r.add(j, res, out.String())
		fmt.Printf("%-5s %-10s %-6s %5.1fs  %s\n", name, j.name, c.verdict(), res.Wall.Seconds(), strings.Join(c.complaints, "; "))
	}
	return r, nil
}

var doctorLine = regexp.MustCompile(`^(dispatch|nat|offload|splice|relay)\W+(yes|no)\b\W*(.*)`)
var selftestLine = regexp.MustCompile(`^(offload|splice) is safe here`)

// add takes the outcome of one job into the row.
func (r *row) add(j job, res vmtest.Result, text string) cell {
	c := cell{name: j.name, wall: res.Wall, code: res.Code}
	r.release = res.Release
	r.wall += res.Wall
	if j.isTest {
		found := expect.Parse(text)
		c.passed, c.skipped = found.Passed, len(found.Skips)
		c.complaints = found.Complaints(r.kernel)
		if f := summary(found.Failed); f != "" {
			c.complaints = append(c.complaints, f)
		}
		if how := ending(res, text); how != "" {
			c.complaints = append(c.complaints, how)
		}
		for _, f := range found.Features {
			r.features[f.Datapath] = f
		}
	} else {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if m := doctorLine.FindStringSubmatch(line); m != nil {
				r.features[m[1]] = expect.Feature{Datapath: m[1], OK: m[2] == "yes", Reason: m[3]}
			}
			if m := selftestLine.FindStringSubmatch(line); m != nil {
				r.safe = append(r.safe, m[1])
			}
		}
		if res.Trouble != "" || r.release == "" {
			c.complaints = append(c.complaints, fmt.Sprintf("exit code %d", res.Code))
		}
	}
	r.cells = append(r.cells, c)
	return c
}

// summary names the first of the failed tests, without their subtests.
func summary(failed []string) string {
	const most = 5
	top := slices.DeleteFunc(slices.Clone(failed), func(name string) bool { return strings.Contains(name, "/") })
	switch {
	case len(top) == 0:
		return ""
	case len(top) <= most:
		return fmt.Sprintf("%d failed: %s", len(top), strings.Join(top, ", "))
	}
	return fmt.Sprintf("%d failed: %s and others", len(top), strings.Join(top[:most], ", "))
}

// ending says how a test binary ended if not by its tests' verdict: 0 or 1.
func ending(res vmtest.Result, text string) string {
	if res.Code == 0 || res.Code == 1 && res.Trouble == "" && strings.Contains(text, "--- FAIL") {
		return ""
	}
	why, _, _ := strings.Cut(res.Trouble, "\n")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "panic: ") {
			why = strings.TrimSpace(line)
			break
		}
	}
	return strings.TrimSuffix(fmt.Sprintf("exit code %d: %s", res.Code, why), ": ")
}
