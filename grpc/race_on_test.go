// SPDX-License-Identifier: Apache-2.0

//go:build race

package grpc_test

const raceDetector = true
