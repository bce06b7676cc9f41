// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sluice/config"
	"sluice/internal/rawtcp"
	"sluice/internal/srcports"
	"sluice/loader"
	"sluice/proxy"
	"sluice/stats"
)

// offload is what forwarding sessions takes, while a listener may have it.
type offload struct {
	forward *loader.Forward
	devices *loader.Devices
	routes  *loader.Routes
	ports   *srcports.Ports
	pin     *loader.Pin // nil: flows end with the process
	first   bool        // whether the program was first on each device at the last look
	egress  bool        // whether what leaves by each was seen then
}

// openRaw opens, before privileges are given up, what forwarding takes of them.
// What it lacks is a reason for a lower datapath; ports that the file names and that
// can't be had are an error.
func (s *Service) openRaw(ctx context.Context, c *config.Config) error {
	s.forwardConf = c.Forward
	if s.opts.Unprivileged {
		s.noOffload = "running without privileges"
		return nil
	}
	if c.Forward.MaxFlows == 0 {
		s.noOffload = "the file says forward.max_flows: 0"
		return nil
	}
	sysctls, err := srcports.ReadSysctls()
	if err != nil {
		s.noOffload = err.Error()
		return nil
	}
	if s.portRanges, err = srcports.Choose(ranges(c.Forward.Ports), sysctls); err != nil {
		return fmt.Errorf("%s:%d:%d: %w", c.File, c.Forward.Pos.Line, c.Forward.Pos.Column, err)
	}
	err = s.openPin(c)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err == nil {
		err = s.tryOffload(ctx)
	}
	if err != nil {
		s.noOffload = err.Error()
		if wantsOffload(c) { // else an edit that wants it has this as the listener's reason
			s.log.Warn().Err(err).Msg("sessions are not forwarded")
		}
		if s.pin != nil && s.pin.Used() {
			s.log.Warn().Str("path", s.pin.Path()).Msg("the sessions that are pinned go on without lines: start again where offload can be had, or end them by `sluice detach`")
		}
		return s.closePin()
	}
	return nil
}

// tryOffload judges kernel and privileges by the self-test, which takes more of them
// than serving does, and opens the raw sockets.
func (s *Service) tryOffload(ctx context.Context) (err error) {
	if len(s.portRanges) == 0 {
		return errNoPorts
	}
	_, err = loader.SelftestOffload(ctx, s.log)
	// What is pinned was made on this boot of this kernel by a process that had passed:
	// on a host that is too busy for the steps its sessions aren't given up.
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && s.pin != nil && s.pin.Used() {
		s.log.Warn().Err(err).Msg("sessions are forwarded all the same, as those that are pinned are")
		err = nil
	}
	if err != nil {
		return err
	}
	s.raw, err = rawtcp.Open()
	return err
}

var errNoPorts = errors.New("no source ports are left beside net.ipv4.ip_local_port_range: name some as forward.ports, and reserve them")

func ranges(of []config.PortRange) []srcports.Range {
	var out []srcports.Range
	for _, r := range of {
		out = append(out, srcports.Range{First: r.First, Last: r.Last})
	}
	return out
}

// startOffload makes what forwarding takes when c is the first file with a listener
// that may have it, before such a listener is bound. What fails is a reason for a lower
// datapath.
func (s *Service) startOffload(c *config.Config) {
	if s.offload != nil || s.raw == nil || !wantsOffload(c) && !s.mayHaveLeft() {
		return
	}
	o, err := s.newOffload()
	if err == nil {
		err = s.engine.SetOffload(&proxy.Offload{Forward: o.forward, Ports: o.ports, Raw: s.raw})
	}
	if err != nil {
		if o != nil {
			err = errors.Join(err, o.close())
		}
		s.noOffload = err.Error()
		s.log.Warn().Err(err).Msg("sessions are not forwarded")
		return
	}
	s.noOffload = ""
	s.putOffload(o)
}

// putOffload has the statistics see this one, or none: no reader is left of the one
// before.
func (s *Service) putOffload(o *offload) {
	s.offloadMu.Lock()
	s.offload = o
	s.offloadMu.Unlock()
}

// forwardStats is what the program did; nil: it isn't loaded.
func (s *Service) forwardStats() *stats.ForwardStats {
	s.offloadMu.RLock()
	defer s.offloadMu.RUnlock()
	if s.offload == nil {
		return nil
	}
	f := s.offload.forward
	return &stats.ForwardStats{Packets: outcomes(f.Outcomes()), Flows: s.engine.Forwarded(), MaxFlows: f.MaxFlows()}
}

func (s *Service) newOffload() (_ *offload, err error) {
	o := &offload{first: true, egress: true, pin: s.pin}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if o.forward, err = loader.NewForward(loader.ForwardOptions{MaxFlows: s.forwardConf.MaxFlows, Pin: s.pin}); err != nil {
		return nil, err
	}
	do := loader.DevicesOptions{Egress: o.forward.StripProgram(), Pin: s.pin}
	if o.devices, err = loader.NewDevices(o.forward.Program(), o.forward.DeviceMap(), do); err != nil {
		return nil, err
	}
	if o.routes, err = loader.NewRoutes(func(r *loader.Routes) { s.engine.Reroute(r.Device) }); err != nil {
		return nil, err
	}
	o.ports = srcports.New(s.portRanges, time.Now)
	s.adoptPorts(o)
	return o, nil
}

// close gives everything back, also when halfway. No session of ours is forwarded any
// more: flows that outlive the process go on.
func (o *offload) close() error {
	var errs []error
	if o.routes != nil {
		errs = append(errs, o.routes.Close())
	}
	leave := o.forward != nil && o.forward.Holds()
	switch {
	case o.devices == nil:
	case leave:
		errs = append(errs, o.devices.Leave())
	default:
		errs = append(errs, o.devices.Close())
	}
	if o.pin != nil && o.forward != nil && !leave {
		errs = append(errs, o.pin.Clear())
	}
	if o.forward != nil {
		errs = append(errs, o.forward.Close())
	}
	if o.ports != nil {
		errs = append(errs, o.ports.Close())
	}
	return errors.Join(errs...)
}

// checkOffload looks, once a second while sessions live, whether the program still
// runs first on each device: sessions are handed over only where it does.
func (s *Service) checkOffload() {
	o := s.offload
	if o == nil {
		return
	}
	if err := o.devices.Check(); err != nil {
		s.log.Warn().Err(err).Msg("devices can't be looked at: sessions are handed over on those known")
	}
	if first, why := o.devices.First(); first != o.first {
		if o.first = first; first {
			s.log.Info().Msg("the forward program is first on every device again")
		} else {
			s.log.Warn().Str("reason", why).Msg("another program of tc runs before the forward program: no session is handed over on that device")
		}
	}
	if egress, why := o.devices.Egress(); egress != o.egress {
		if o.egress = egress; egress {
			s.log.Info().Msg("what leaves by every device is seen again")
		} else {
			s.log.Warn().Str("reason", why).Msg("what leaves by a device can't be seen: sessions of clients without timestamps or ECN stay below offload there")
		}
	}
}

// whyNotOffload says why no session of l can be forwarded, whoever its clients are.
func (s *Service) whyNotOffload(l *config.Listener, p *config.Pool) string {
	if why := forbidsOffload(l, p); why != "" {
		return why
	}
	if s.offload == nil {
		return s.noOffload
	}
	return ""
}

// dropOffload gives back what forwarding takes once no listener may have it and the last
// such session has ended.
func (s *Service) dropOffload() {
	if s.offload == nil || wantsOffload(s.cfg) || s.engine.Forwarded() > 0 {
		return
	}
	if s.engine.SetOffload(nil) != nil {
		return // one has just come
	}
	if err := s.endOffload(); err != nil {
		s.log.Warn().Err(err).Msg("ending offload")
	}
}

// endOffload closes it, once no session is forwarded any more.
func (s *Service) endOffload() error {
	o := s.offload
	if o == nil {
		return nil
	}
	s.putOffload(nil)
	return o.close()
}

// closeOffload ends forwarding at the very end.
func (s *Service) closeOffload() error {
	err := errors.Join(s.endOffload(), s.closePin())
	if s.raw != nil {
		err = errors.Join(err, s.raw.Close())
		s.raw = nil
	}
	if err != nil {
		return fmt.Errorf("ending offload: %w", err)
	}
	return nil
}
