// Package guard keeps secret values secret. [Values] are those that a build used. A [Matcher] knows them in all the forms in which
// programs let them slip (as they are, in base64, hex, escaped for URLs, JSON or a shell, line by line), masks them in text, and
// finds them in data. A [Masker] does the former to a stream, a [Finder] the latter.
//
// Values shorter than [MinFind] bytes are found everywhere by chance, so they are masked in logs alone.
//
// # How values are found
//
// Every form that is searched for is at least eight bytes long, so whatever holds one also holds, at one of every five positions, one of
// the four-byte words at the form's first five offsets. Data is probed at every fifth byte (further apart if all forms are longer), in a
// table of bits that stays in the processor's first cache, and only where a bit is set is anything compared. That takes less time than
// reading the data from memory, however many values there are.
package guard
