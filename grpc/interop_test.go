// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"context"
	"testing"
	"time"

	rpc "google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// interopCases are gRPC's own, those that need no credentials.
func interopCases() map[string]func(context.Context, *rpc.ClientConn) {
	type client = testgrpc.TestServiceClient
	simple := func(f func(context.Context, client, ...rpc.CallOption)) func(context.Context, *rpc.ClientConn) {
		return func(ctx context.Context, c *rpc.ClientConn) { f(ctx, testgrpc.NewTestServiceClient(c)) }
	}
	return map[string]func(context.Context, *rpc.ClientConn){
		"empty_unary":                 simple(interop.DoEmptyUnaryCall),
		"large_unary":                 simple(interop.DoLargeUnaryCall),
		"client_streaming":            simple(interop.DoClientStreaming),
		"server_streaming":            simple(interop.DoServerStreaming),
		"ping_pong":                   simple(interop.DoPingPong),
		"empty_stream":                simple(interop.DoEmptyStream),
		"timeout_on_sleeping_server":  simple(interop.DoTimeoutOnSleepingServer),
		"cancel_after_begin":          simple(interop.DoCancelAfterBegin),
		"cancel_after_first_response": simple(interop.DoCancelAfterFirstResponse),
		"status_code_and_message":     simple(interop.DoStatusCodeAndMessage),
		"special_status_message":      simple(interop.DoSpecialStatusMessage),
		"custom_metadata":             simple(interop.DoCustomMetadata),
		"unimplemented_method":        interop.DoUnimplementedMethod,
		"unimplemented_service": func(ctx context.Context, c *rpc.ClientConn) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(c))
		},
	}
}

func TestInterop(t *testing.T) {
	s := newServer(t, "a")
	r := newRig(t, backends{"pool": {s.addr}}, nil)
	c := r.client()
	for name, f := range interopCases() {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p := recover(); p != nil {
					t.Error(p)
				}
			}()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			f(ctx, c)
		})
	}
}
