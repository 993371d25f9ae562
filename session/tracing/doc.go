// Package tracing puts opentracing spans around gRPC calls.
//
// A client interceptor starts a span for each call it makes and writes the span's context into the call's metadata; a server
// interceptor reads it there, starts the child span and puts it into the handler's context. Any opentracing.Tracer will do;
// package tracing/otelbridge makes one of an OpenTelemetry provider, so that spans end there and a peer that speaks W3C trace
// context takes part in the same trace.
//
// Health checks get no spans: they come every few seconds and tell nothing.
package tracing
