// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"errors"

	"github.com/rs/zerolog"

	"sluice/config"
)

type Server struct{}

func NewServer(addr config.Address, src Source, log zerolog.Logger) (*Server, error) {
	return nil, errors.New("not yet")
}
func (s *Server) Serve() error { return nil }
func (s *Server) Close() error { return nil }
