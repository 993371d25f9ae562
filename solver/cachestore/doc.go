// Package cachestore is the solver's cache on this machine: what promises are called, and where the results of identities can
// be had.
//
// An alias says which identity a promise has. A record says, per output of an identity, which layers make it up; layers
// that were still at a registry are noted with where to fetch them again, so that a record can be named and pushed
// without its bytes. A content digest is what a selector once read of one output. All three live in buckets of the layer
// store's index.
//
// A record holds no layer: the collector may remove what a record names, and the record is then a miss and is dropped.
package cachestore
