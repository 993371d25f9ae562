"""Differences that are as they should be. docs/compatibility.md says why of each; compare.py prints its words and does not count it."""
import re

# The builder (0 is either), a pattern of cases, one of what differs, and the words.
EXPLAINED = [
    (1, "arg-proxy", "output line .*", "--build-arg HTTP_PROXY without an ARG"),
    (1, "unknown-instruction", "output line .*", "unknown instruction"),
    (1, "bad-flag", "output line .*", "unknown flag of an instruction"),
    (1, "run-network", "output line .*", "RUN --network and other new syntax"),
    (1, "no-from-args", "output line .*", "a Dockerfile with nothing but ARG"),
]


def explanation(builder, case, what):
    for b, cases, whats, words in EXPLAINED:
        if b in (0, builder) and re.fullmatch(cases, case) and re.fullmatch(whats, what):
            return words
    return None
