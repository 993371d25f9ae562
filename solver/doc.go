// Package solver answers for the results of a graph of steps, running only what no cache can give. It knows no containers,
// files or registries: a step is an [Op], and ops that add numbers are enough to test it.
//
// # Words
//
// A [Vertex] is one step of one build's graph, an [Edge] one of its outputs. Its *promise* is H(op, promises of its inputs):
// known from definitions alone, once sources are pinned. Its *identity* is H(op, what it reads of its inputs): of each input
// the content of what the op's [Selector] sees, or else the input's identity. An identity names a result. Both are lists of
// named parts before they are digests, and every look-up writes its parts as a trace, so that a miss can be explained.
//
// The [Store] holds promise → identity, an *alias*, and identity → *record*, where results can be had. A *flight* is work shared
// by all who want it now, see package flight. A *lender* is what a waiting build lends to shared work: its session.
//
// In the terms of "Build systems à la carte" this is a suspending scheduler with constructive traces and early cutoff. Go's
// runtime is the suspending scheduler: a question about a vertex is a function that reads from top to bottom, asks the same of
// the inputs, and waits.
//
//	promise(v)   the op's key, promise(inputs)
//	alias(v)     what the store has for promise(v)
//	identity(v)  alias(v), or else the op's key, and identity or content of the inputs
//	result(v)    the record of alias(v)         no input is touched
//	             the record of identity(v)      selective inputs are read
//	             the op's run                   inputs are made
//
// Each is asked once for a vertex in a build, by however many consumers ([question]). Builds share no vertices. They meet at
// equal keys, in flights of the [Solver]: by promise where aliases are looked up, and by identity where records are looked up,
// contents are digested and ops run. Before it looks further, a vertex joins a run under its identity that is on already; so two
// builds that want the same at the same time make it once, and the later one needs none of the inputs.
//
// # Why it cannot deadlock
//
// Who waits for whom:
//
//  1. A question about v waits for questions about v that stand above it in the list, and for questions about inputs of v, which
//     come before v in a graph without cycles. Both go to something smaller.
//  2. A question waits for flights. It brings along all that the flight needs: the inputs of a run are made, and held, before the
//     run is asked for.
//  3. A flight waits for the store, for its op or selector, and for its op to end an earlier run that was abandoned. None of
//     these waits for a question or for another flight. So a flight never waits for itself, also where equal work meets at one
//     key, in one build or in several, from whatever definitions.
//  4. No lock of this package is held while anything above is waited for.
//
// An execution slot or another limited resource is taken by the op, in Run, where nothing of the solver is waited for any more.
// The exception is an op that builds a definition found in its inputs and asks for the steps of that: these are a graph of their
// own, smaller in the order of nesting, whose depth the op bounds.
//
// A question that waits for one other alone answers that on its own goroutine, to a bounded depth; that is a call instead of a
// wait and changes nothing of the above.
//
// # Giving up
//
// Every wait ends with the context of who waits. What nobody waits for any more is cancelled, from the vertex that was asked for
// down to the ops that run; shared work goes on while another build waits for it, with the lenders that are left. The op and
// inputs of a run are held by the run, not by the build that led it, so that build may close. A cancellation or time-out is
// never stored, is never a question's answer, and is never handed to a build that did not give up. [Solver.Close] waits for work
// that was abandoned and still winds down.
//
// # Names that were, names that are
//
// An alias may outlive its record: then consumers can still be named, and found, without the input being made. But when a step
// runs, it is stored under an identity formed from the inputs it was really given. If one of them had to be made again and came
// out differently, what is stored says so, and the cache never claims a result for inputs it was not made of.
//
// # Ignoring the cache
//
// A step with IgnoreCache gets an identity salted with a random word of its build. From this everything follows:
//
//   - It runs in this build, since nothing is stored under that identity; and once, since other vertices of equal definition
//     meet it there. Builds that ignore the cache at the same time have different salts and share nothing of it.
//   - Consumers that read the whole of it get new identities and run; selective ones are named by content and need not.
//   - Promises stay what they are, but that of the step and of all that comes of it is not looked up in this build, for it
//     leads to what came of a former result. It is overwritten when the new result is there, so later builds find that.
//   - A later build may miss by promise, after an irrelevant edit, and form the step's identity without salt. That one is left
//     with a *renaming*, an alias from the identity to its salted successor, which is followed whenever an identity is formed.
//     So new results are never mixed with what was made from old ones, whatever way leads to them.
//
// # Lost bytes
//
// When an op or selector finds that the bytes behind an input are gone, it returns a [LostError]. The record is forgotten within
// the flight, before anyone hears of it, and each waiting build makes the input again from its producers and tries again, a few
// times. A fault of the store is a miss with a reason, or a result that is not remembered, and never fails a build.
package solver
