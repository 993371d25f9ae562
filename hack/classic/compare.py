#!/usr/bin/env python3
"""Build the same Dockerfiles with dockerd's classic builder and with slipwayd's, and print every difference.

    compare.py DOCKERD_SOCKET SLIPWAYD_SOCKET SLIPWAYD_ROOT [CASE...]

Both daemons must run and have no images: `dockerd --bridge=none --iptables=false -H unix://DOCKERD_SOCKET`, and slipwayd with --root SLIPWAYD_ROOT. The
client is docker 20.10 (DOCKER, by default /usr/bin/docker) without BuildKit. Compared are the exit status, what is printed with
ids masked, the image's config, and its history. The exit status is that there are differences.
"""
import glob, json, os, re, subprocess, sys, tempfile

from corpus import CASES

DOCKER = os.environ.get("DOCKER", "/usr/bin/docker")
IGNORED = {"Hostname", "Image"}  # name containers and images of the daemon itself


def masked(text):
    text = re.sub(r"\b(sha256:)?[0-9a-f]{64}\b", "<digest>", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"^Sending build context.*\r?\n|^.*\r(?=.)", "", text, flags=re.M)
    return [l for l in text.splitlines() if l.strip() and "IPv4 forwarding" not in l and "DEPRECATED" not in l]


def build(socket, case, name, directory):
    env = dict(os.environ, DOCKER_BUILDKIT="0", DOCKER_HOST="unix://" + socket)
    iid = os.path.join(directory, "..", "iid")
    cmd = [DOCKER, "build", "--network=none", "--iidfile", iid, "-t", name] + case.get("args", []) + ["."]
    out = []
    for again in range(2 if case.get("twice") else 1):
        p = subprocess.run(cmd, cwd=directory, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        out += masked(p.stdout)
    image = open(iid).read() if os.path.exists(iid) else ""
    return p.returncode, out, image


def config_of_dockerd(socket, image, root):
    path = root and os.path.join(root, "image", "*", "imagedb/content/sha256", image.split(":")[1])
    return read(path)


def config_of_slipway(root, image):
    return read(os.path.join(root, "**/blobs/sha256", image.split(":")[1]))


def read(pattern):
    for path in glob.glob(pattern, recursive=True):
        return json.load(open(path))
    return {}


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


def main():
    dockerd, slipwayd, root = sys.argv[1:4]
    info = subprocess.run([DOCKER, "-H", "unix://" + dockerd, "info", "-f", "{{.DockerRootDir}}"], stdout=subprocess.PIPE, text=True)
    differences = 0
    for name, case in CASES.items():
        if sys.argv[4:] and name not in sys.argv[4:] and name != "base":
            continue
        with tempfile.TemporaryDirectory() as tmp:
            write_context(tmp + "/ctx", case)
            tag = "base:1" if name == "base" else "cmp/" + name
            a, b = build(dockerd, case, tag, tmp + "/ctx"), build(slipwayd, case, tag, tmp + "/ctx")
        found = []
        if a[0] != b[0]:
            found.append(("exit status", a[0], b[0]))
        if a[1] != b[1]:
            for i in range(max(len(a[1]), len(b[1]))):
                x, y = (l[i] if i < len(l) else "(nothing)" for l in (a[1], b[1]))
                if x != y:
                    found.append(("output line %d" % (i + 1), x, y))
        if a[2] and b[2]:
            pa, pb = picture(config_of_dockerd(dockerd, a[2], info.stdout.strip())), picture(config_of_slipway(root, b[2]))
            if not (pa[0] and pb[0]):
                found.append(("config", pa[0] or "not found", pb[0] or "not found"))
            for what, x, y in zip(("config", "history", "author", "last command"), pa, pb):
                if x != y:
                    found.append((what, x, y))
        elif bool(a[2]) != bool(b[2]):
            found.append(("image", a[2], b[2]))
        print("%-24s %s" % (name, "same" if not found else "%d differences" % len(found)), flush=True)
        for what, x, y in found:
            print("    %s\n        docker:  %s\n        slipway: %s" % (what, x, y))
        differences += len(found)
    return differences != 0


if __name__ == "__main__":
    sys.exit(main())
