// SPDX-License-Identifier: Apache-2.0

package service

import (
	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/pool"
)

// wantedByLog says what the access log's lines need that costs a system call a
// session.
func wantedByLog(a *config.AccessLog) (tcpInfo, serverAddr bool) {
	if a == nil {
		return false, false
	}
	pieces, err := config.ParseFormat(a.Format)
	if err != nil {
		return true, true
	}
	for _, p := range pieces {
		switch p.Variable {
		case "client_rtt", "upstream_rtt", "upstream_retrans":
			tcpInfo = true
		case "server_addr", "server_port":
			serverAddr = true
		}
	}
	return tcpInfo, serverAddr
}

func zerologLevel(k pool.EventKind) zerolog.Level {
	switch k {
	case pool.Back:
		return zerolog.InfoLevel
	case pool.Ejected, pool.Failure:
		return zerolog.WarnLevel
	}
	return zerolog.ErrorLevel
}
