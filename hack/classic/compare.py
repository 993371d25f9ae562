#!/usr/bin/env python3
"""Build the same Dockerfiles with dockerd and with slipwayd, with the classic builder and by session, and print every difference.

    compare.py [--builder 1|2] DOCKERD_SOCKET SLIPWAYD_SOCKET [CASE...]

Both daemons must run and have no images: `dockerd --bridge=none --iptables=false -H unix://DOCKERD_SOCKET`, and slipwayd. The
client is docker 20.10 (DOCKER, by default /usr/bin/docker). Compared are the exit status, the image's config, its history, and its root file system: names,
types, modes, owners, contents, extended attributes and which names are links to the same file. Of the classic builder also what is
printed, with ids masked; of the other the last line of an error. The exit status is that there are differences which explained.py does not know.
"""
import argparse, json, os, re, subprocess, sys, tempfile

import rootfs
from corpus import CASES
from explained import explanation

DOCKER = os.environ.get("DOCKER", "/usr/bin/docker")
IGNORED = {"Hostname", "Image"}  # name containers and images of the daemon itself


def masked(text):
    text = re.sub(r"\b(sha256:)?[0-9a-f]{64}\b", "<digest>", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"^Sending build context.*\r?\n|^.*\r(?=.)", "", text, flags=re.M)
    return [l for l in text.splitlines() if l.strip() and "IPv4 forwarding" not in l and "DEPRECATED" not in l]


def failure(text):
    """The last line of what a session-based build prints, without what clients and daemons of several versions put before it."""
    text = (masked(text) or [""])[-1]
    text = re.sub(r"^(ERROR: )?failed to solve( with frontend [^:]*)?: (rpc error: code = \w+ desc = )?", "", text)
    return re.sub(r"^failed to (build LLB|create LLB definition|solve LLB|compute cache key|read dockerfile|load cache key|walk [^:]*): ", "", text)


def build(socket, case, name, directory, builder):
    env = dict(os.environ, DOCKER_BUILDKIT=str(builder - 1), DOCKER_HOST="unix://" + socket, BUILDKIT_PROGRESS="plain")
    iid = os.path.join(directory, "..", "iid")
    cmd = [DOCKER, "build", "--network=none", "--iidfile", iid, "-t", name] + case.get("args", []) + ["."]
    out = []
    for again in range(2 if case.get("twice") else 1):
        p = subprocess.run(cmd, cwd=directory, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        out += masked(p.stdout) if builder == 1 else [failure(p.stdout)] if p.returncode else []
    if not os.path.exists(iid):
        return p.returncode, out, None
    image = open(iid).read().strip()
    os.remove(iid)
    archive = os.path.join(directory, "..", "image.tar")
    if subprocess.run([DOCKER, "save", "-o", archive, image], env=env, stderr=subprocess.DEVNULL).returncode == 0:
        return p.returncode, out, rootfs.read(archive)
    # Docker saves no image without layers.
    inspected = json.loads(subprocess.run([DOCKER, "inspect", image], env=env, check=True, stdout=subprocess.PIPE).stdout)[0]
    return p.returncode, out, ({"config": inspected["Config"]}, {})


def picture(config):
    c = {k: v for k, v in (config.get("config") or {}).items() if k not in IGNORED and v not in (None, "", [], {}, False)}
    history = [(masked(h.get("created_by", ""))[:1] or [""])[0] + ("" if h.get("empty_layer") else " +") for h in config.get("history", [])]
    return c, history, config.get("author", ""), (config.get("container_config") or {}).get("Cmd") and masked(" ".join(config["container_config"]["Cmd"]))


def write_context(directory, case):
    os.makedirs(directory)
    for path, text in dict(case.get("files", {}), Dockerfile=case["dockerfile"]).items():
        path = os.path.join(directory, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if callable(text):
            text(path)
        else:
            open(path, "w").write(text)


def differences(a, b):
    """Every difference of two builds: what it is in, docker's and slipway's."""
    found = []
    if a[0] != b[0]:
        found.append(("exit status", a[0], b[0]))
    if a[1] != b[1]:
        for i in range(max(len(a[1]), len(b[1]))):
            x, y = (l[i] if i < len(l) else "(nothing)" for l in (a[1], b[1]))
            if x != y:
                found.append(("output line %d" % (i + 1), x, y))
    if not a[2] or not b[2]:
        if bool(a[2]) != bool(b[2]):
            found.append(("image", bool(a[2]), bool(b[2])))
        return found
    saved = all("history" in side[2][0] for side in (a, b))
    for what, x, y in zip(("config", "history", "author", "last command") if saved else ("config",), picture(a[2][0]), picture(b[2][0])):
        if what == "history" and len(x) == len(y):
            found += [("history of " + m, m, n) for m, n in zip(x, y) if m != n]
        elif x != y:
            found.append((what, x, y))
    for path in sorted(set(a[2][1]) | set(b[2][1])):
        x, y = (side[2][1].get(path, "(nothing)") for side in (a, b))
        if x != y:
            found.append(("/" + path, x, y))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--builder", type=int, choices=(1, 2), action="append", help="1 is the classic one, 2 the session-based one; default both")
    parser.add_argument("dockerd")
    parser.add_argument("slipwayd")
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    total = 0
    for builder in args.builder or (1, 2):
        for name, case in CASES.items():
            if name == "base" and builder != 1 and len(args.builder or (1, 2)) > 1:
                continue  # it is there
            if builder not in case["builders"]:
                continue  # it brings dockerd down
            if args.cases and name not in args.cases and name != "base":
                continue
            with tempfile.TemporaryDirectory() as tmp:
                write_context(tmp + "/ctx", case)
                tag = "base:1" if name == "base" else "cmp/" + name
                sides = [build(s, case, tag, tmp + "/ctx", 1 if name == "base" else builder) for s in (args.dockerd, args.slipwayd)]
            found = [d + (explanation(builder, name, *d),) for d in differences(*sides)]
            unexplained = [d for d in found if not d[3]]
            print("v%d %-24s %s" % (builder, name, "same" if not found else "%d differences, %d of them explained" % (len(found), len(found) - len(unexplained))), flush=True)
            for words in sorted({d[3] for d in found if d[3]}):
                print("    explained: " + words)
            for what, x, y, _ in unexplained:
                print("    %s\n        docker:  %s\n        slipway: %s" % (what, x, y))
            total += len(unexplained)
    return total != 0


if __name__ == "__main__":
    sys.exit(main())
