// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the real binary from outside: it is built once, run with
// files as an operator writes them, and judged by what clients, backends, the
// access log and the statistics show. Debian's nginx runs beside it where
// nginx's behaviour is what is promised.
package e2e
