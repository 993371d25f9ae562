// Package rules holds the direction of imports as tests, so that a slip is a red line in review: which room may import which,
// which packages of BuildKit are the language and the wire, and what the command line must never link.
package rules
