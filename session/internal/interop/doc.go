// Package interop holds the tests that connect our sessions to BuildKit's, each as client and as daemon.
package interop
