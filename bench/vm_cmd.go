// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"sluice/bench/contender"
	"sluice/bench/measure"
	"sluice/bench/report"
	"sluice/bench/result"
)

// vmModules are what nft and IPVS need of a distribution's kernel.
const vmModules = "ip_vs,ip_vs_rr,nft_chain_nat,nft_masq,nft_numgen,nft_nat,nft_flow_offload?,nf_flow_table_inet?,tun?"

func vmCommand() *cli.Command {
	return &cli.Command{Name: "vm", Usage: "the main figures on another kernel, in QEMU, with IPVS among the peers; into bench/results and docs/benchmarks.md",
		Description: "Without KVM the machine is emulated: its ratios are of instructions, not of a processor's time.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kernel", Value: "6.12", Usage: "a name of vmtest/kernels.list"},
			&cli.StringFlag{Name: "w", Value: "pingpong-pinned,rps64,connrate,bulk1,bulk4,cpu5000", Usage: "workloads, separated by commas"},
			&cli.IntFlag{Name: "rounds", Value: 5},
			&cli.Float64Flag{Name: "seconds", Value: 1, Usage: "of each sample"}},
		Action: func(c *cli.Context) error {
			if _, err := measure.Select(strings.Split(c.String("w"), ",")); err != nil {
				return err
			}
			root, err := sourceRoot()
			if err != nil {
				return err
			}
			run, err := inVM(c, root)
			if err != nil {
				return err
			}
			path, err := run.Save(resultsIn(root))
			if err != nil {
				return err
			}
			fmt.Println("\nwritten:", path)
			return errors.Join(writeDocs(root, ""), measured(run))
		}}
}

// inVM runs `bench one` in the guest and reads the result from its output.
func inVM(c *cli.Context, root string) (*result.Run, error) {
	dir, remove, err := measure.Temp()
	if err != nil {
		return nil, err
	}
	run, err := guestRun(c, root, dir)
	return run, errors.Join(err, remove())
}

func guestRun(c *cli.Context, root, dir string) (*result.Run, error) {
	for _, b := range []struct {
		module   string
		packages []string
	}{{"bench", []string{"."}}, {".", []string{"./cmd/sluice", "./vmtest/cmd/vmtest-run"}}} {
		build := exec.CommandContext(c.Context, "go", append([]string{"build", "-o", dir}, b.packages...)...)
		build.Dir, build.Env = filepath.Join(root, b.module), append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building for the guest: %w\n%s", err, text)
		}
	}
	args := []string{"-v", "-kernel", c.String("kernel"), "-memory", "4096", "-timeout", "60m",
		"-tool", "nginx,haproxy,nft,ipvsadm", "-module", vmModules, "-file", "/tmp/sluice=" + filepath.Join(dir, "sluice")}
	if module := contender.StreamModule(); module != "" {
		args = append(args, "-file", module+"="+module)
	}
	args = append(args, filepath.Join(dir, "bench"), "one", "-o", "-", "-sluice", "/tmp/sluice", "-w", c.String("w"),
		"-rounds", fmt.Sprint(c.Int("rounds")), "-seconds", fmt.Sprint(c.Float64("seconds")))
	var out bytes.Buffer
	vm := exec.CommandContext(c.Context, filepath.Join(dir, "vmtest-run"), args...)
	vm.Dir, vm.Stdout, vm.Stderr = root, &out, os.Stderr
	if err := vm.Run(); err != nil {
		return nil, fmt.Errorf("in the guest: %w", err)
	}
	run := &result.Run{}
	if err := json.Unmarshal(out.Bytes(), run); err != nil {
		return nil, fmt.Errorf("the guest's result: %w in %.300s", err, out.String())
	}
	run.Mode, run.Commit = "vm", commit(root)
	return run, nil
}

func resultsIn(root string) string { return filepath.Join(root, "bench", "results") }

// writeDocs writes docs/benchmarks.md, its plots and README's table from the
// full result at path, or the newest one, and the newest one of a vm.
func writeDocs(root, path string) error {
	var err error
	if path == "" {
		if path, err = newest(resultsIn(root), "full"); err != nil {
			return err
		}
	}
	full, err := result.Load(path)
	if err != nil {
		return err
	}
	var vm *result.Run
	if path, err := newest(resultsIn(root), "vm"); err == nil {
		if vm, err = result.Load(path); err != nil {
			return err
		}
	}
	return errors.Join(report.Docs(full, vm, filepath.Join(root, "docs")), report.Readme(full, filepath.Join(root, "README.md")))
}
