// Package flight shares work among all who want it at the same time.
//
// A *flight* is one run of a function under a key. Those who ask for a key while its flight is on *join* it: they are its
// *waiters*, and each names a *participant*, any value that tells the work on whose behalf it is wanted. The waiter that
// found no flight and started one is its *leader*, and is otherwise like the others: when it leaves, the flight goes on.
//
// What a flight guarantees:
//
//   - It has its own context, made from the group's and from no waiter's.
//   - It is cancelled when the last waiter leaves, and at that moment, under the lock that counts waiters, it also leaves the
//     table. So nobody joins a dying flight, and a newcomer need neither retry nor sleep: it starts a fresh one.
//   - Its cancellation is never handed to a waiter that did not ask for it. A waiter whose own context lives and which gets a
//     context error from somebody else's flight asks again, and leads in the end.
//   - A panic in the work is an error for its waiters, see [PanicError].
//   - Abandoned is not finished: [Group.Close] waits for flights that nobody waits for any more.
//
// The package knows nothing of what flies.
package flight
