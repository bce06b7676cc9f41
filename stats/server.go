// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
)

const (
	// maxClients bounds the connections served at once; more wait in the
	// kernel's queue. Each is closed after its answer.
	maxClients     = 32
	maxHeaderBytes = 8 << 10
	readLimit      = 5 * time.Second
	writeLimit     = 10 * time.Second
)

// Server is the statistics endpoint: it reads only.
type Server struct {
	front *front
	http  *http.Server
}

// NewServer binds the endpoint at addr, a literal address or a unix socket; it
// answers once Serve runs. The error names the address. The caller closes it.
func NewServer(addr config.Address, src Source, log zerolog.Logger) (*Server, error) {
	metrics, err := newMetricsHandler(src, log)
	if err != nil {
		return nil, err
	}
	front, err := listen(addr)
	if err != nil {
		return nil, err
	}
	h := &http.Server{
		Handler:           &handler{src: src, metrics: metrics},
		ReadHeaderTimeout: readLimit,
		ReadTimeout:       readLimit,
		WriteTimeout:      writeLimit,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          quietLog(log),
		// net/http would answer OPTIONS * by itself, with 200.
		DisableGeneralOptionsHandler: true,
	}
	// An idle connection would hold a place that another client waits for.
	h.SetKeepAlivesEnabled(false)
	return &Server{front: front, http: h}, nil
}

// Address is what the endpoint is bound to, with the port that was given out.
func (s *Server) Address() net.Addr { return s.front.Addr() }

// Serve answers until Close, and then returns nil.
func (s *Server) Serve() error {
	err := s.http.Serve(newBounded(s.front, maxClients))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close stops answering, gives answers under way a moment, and unlinks a unix
// socket that is still ours. It may be called without Serve.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	if closing := s.front.Close(); !errors.Is(closing, net.ErrClosed) {
		err = errors.Join(err, closing)
	}
	return err
}
