// Package sourcepolicy decides which sources a build may use, and which others stand in for them.
//
// A client sends rules with its request (SolveRequest.SourcePolicy, and more of them with single calls of the gateway), or names a
// session that is asked about every source (SolveRequest.SourcePolicySession), or both. Rules are of BuildKit's
// sourcepolicy/pb: see [Rules] for how they are read. A [Guard] is all of that for one build; whoever resolves or loads a source
// passes it by the guard first.
package sourcepolicy
