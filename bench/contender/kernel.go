// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"sluice/bench/load"
)

// Peers that are rules of the kernel, not processes: packets are rewritten and
// forwarded, nothing is terminated.

func nft() (*Contender, error) {
	path, err := FindProgram("nft")
	if err != nil {
		return nil, err
	}
	c := &Contender{Name: "nft", Program: path, template: "nft.conf.tmpl", config: "nft.conf", apply: loadRules, update: loadFile}
	return c, nil
}

// loadFile writes the ruleset for these backends and loads it, in one transaction.
func loadFile(in *Instance, ctx context.Context, backends []netip.Addr) error {
	if err := in.write(backends); err != nil {
		return err
	}
	return in.run(ctx, nil, in.Program, "-f", in.configPath())
}

func ipvs() (*Contender, error) {
	path, err := FindProgram("ipvsadm")
	if err != nil {
		return nil, err
	}
	nft, err := FindProgram("nft")
	if err != nil {
		return nil, err
	}
	c := &Contender{Name: "ipvs", Program: path, template: "ipvs.rules.tmpl", config: "ipvs.rules", update: editIPVS}
	c.apply = func(in *Instance, ctx context.Context) error {
		rules, err := os.ReadFile(in.configPath())
		if err != nil {
			return err
		}
		if err := in.run(ctx, rules, c.Program, "-R"); err != nil {
			return err
		}
		// Masquerading acts on connection tracking, which IPVS leaves alone unless told.
		err = in.Host.Sysctl("ipv4/vs/conntrack", "1")
		return errors.Join(err, in.run(ctx, []byte(masquerade), nft, "-f", "-"), in.conntrack())
	}
	return c, nil
}

// masquerade has the backends answer by way of the balancer.
const masquerade = `table ip bench {
	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "sl-back" masquerade
	}
}
`

// HasIPVS says whether this kernel has IPVS at hand.
func HasIPVS() bool {
	_, err := os.Stat("/proc/net/ip_vs")
	return err == nil
}

// loadRules loads the ruleset, with a flow table where the kernel has them: the
// short cut for established flows that nftables' manual recommends.
func loadRules(in *Instance, ctx context.Context) error {
	in.flowtable = true
	err := loadFile(in, ctx, in.Backends)
	if err != nil {
		in.flowtable = false
		err = loadFile(in, ctx, in.Backends)
	}
	return errors.Join(err, in.conntrack())
}

// conntrack shortens what connection tracking remembers of a closed connection
// to what this bench's clients need, which never use a port again within it:
// else short connections fill the table, and nothing else would be measured.
func (in *Instance) conntrack() error {
	return in.Host.Sysctl("netfilter/nf_conntrack_tcp_timeout_time_wait", "1")
}

// editIPVS takes the last backend out or in, as keepalived would.
func editIPVS(in *Instance, ctx context.Context, backends []netip.Addr) error {
	last := in.Backends[len(in.Backends)-1]
	front := netip.AddrPortFrom(in.Front, load.EchoPort).String()
	server := netip.AddrPortFrom(last, load.EchoPort).String()
	args := []string{"-d", "-t", front, "-r", server}
	if slices.Contains(backends, last) {
		args = []string{"-a", "-t", front, "-r", server, "-m"}
	}
	return in.run(ctx, nil, in.Program, args...)
}

// run runs a command on the balancer's host to its end.
func (in *Instance) run(ctx context.Context, input []byte, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(string(input))
	return in.Host.Do(func() error {
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(string(text)))
		}
		return nil
	})
}
