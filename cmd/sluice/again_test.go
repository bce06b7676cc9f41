// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sluice/service"
)

const asSluice = "SLUICE_TEST_AS_SLUICE"

// TestMain lets the test binary be sluice itself: `run` gives up privileges,
// which can't be had back.
func TestMain(m *testing.M) {
	if os.Getenv(asSluice) != "" {
		os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// again runs sluice as a process of its own.
func again(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asSluice+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// freeAddr is a loopback address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serve runs a service with an endpoint and returns the endpoint's address.
func serve(t *testing.T) (addr string, stop func()) {
	t.Helper()
	addr = freeAddr(t)
	cfg := file(t, strings.NewReplacer("stats: off", "stats: "+addr, "127.0.0.1:19585", freeAddr(t)).Replace(valid))
	ctx, cancel := context.WithCancel(context.Background())
	s := service.New(service.Options{ConfigFile: cfg, Version: "test", Unprivileged: true})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, nil) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return addr, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
