// Package provenance writes down what a build was asked for and what it used, as SLSA provenance predicates of version 0.2 and 1 in the
// form that BuildKit's clients read (its docs/attestations/slsa-definitions.md).
//
// A [Capture] is collected of one platform's result; [Capture.Predicate] says it as [Options] ask. Credentials in URLs are
// taken out of everything that is written; values of secrets never come here.
package provenance
