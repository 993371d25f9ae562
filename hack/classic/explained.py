"""Differences that are as they should be. docs/compatibility.md says why of each; compare.py prints its words and does not count it."""
import re


def empty(docker, slipway):
    """The same step, and Slipway says that it made no layer."""
    return docker == slipway + " +"


def failed_command(docker, slipway):
    command = r"\[(.*)\]: exit code: \d+", r'process "(.*)" did not complete successfully: exit code: \d+'
    return all(re.search(p, side) for p, side in zip(command, (docker, slipway)))


def any_text(docker, slipway):
    return True


# The builder, a pattern of cases, one of what differs, what docker's and slipway's have to be, and the words.
EXPLAINED = [
    (1, "arg-proxy", "output line .*", any_text, "--build-arg HTTP_PROXY without an ARG"),
    (1, "unknown-instruction", "output line .*", any_text, "unknown instruction"),
    (1, "bad-flag", "output line .*", any_text, "unknown flag of an instruction"),
    (1, "run-network", "output line .*", any_text, "RUN --network and other new syntax"),
    (1, "no-from-args", "output line .*", any_text, "a Dockerfile with nothing but ARG"),
    (1, "no-image|user-name-bad|missing-program|add-over|copy-dir-slash|expose-bad", "output line .*", any_text, "texts of failures that are not the builder's own"),
    (1, "etc-files", "output line .*", any_text, "/etc/hostname in a step"),
    (2, ".*", "history of (RUN|WORKDIR|COPY|ADD) .*", empty, "steps that change nothing"),
    (2, ".*", "history of (ARG|EXPOSE|HEALTHCHECK) .*", any_text, "texts of histories"),
    (2, ".*", r"history of (COPY|ADD) .*", lambda d, s: re.sub(r" --ch(own|mod)=\S+", "", s) == d, "texts of histories"),
    (2, ".*", "output line .*", failed_command, "text of a command that failed"),
    (2, "arg-env", "history of RUN .*", any_text, "texts of histories"),
    (2, "scratch-run", "/etc", any_text, "/etc of an image without it"),
    (2, "copy-missing|copy-outside|stopsignal-bad|target-missing|unknown-instruction|bad-env", "output line .*", any_text, "texts of newer BuildKit"),
]


def explanation(builder, case, what, docker, slipway):
    for b, cases, whats, so, words in EXPLAINED:
        if b == builder and re.fullmatch(cases, case) and re.fullmatch(whats, what) and so(docker, slipway):
            return words
    return None
