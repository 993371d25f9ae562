"""The root file system of an image, from an archive that `docker save` wrote."""
import hashlib, json, os, tarfile

TYPES = {tarfile.REGTYPE: "-", tarfile.AREGTYPE: "-", tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}


class Node:
    """What one or several names are, without times."""

    def __init__(self, layer, member):
        self.kind = TYPES[member.type]
        self.mode, self.owner = member.mode & 0o7777, (member.uid, member.gid)
        self.xattrs = {k[len("SCHILY.xattr."):]: v.encode("utf-8", "surrogateescape").hex() for k, v in member.pax_headers.items() if k.startswith("SCHILY.xattr.")}
        self.what = ""
        if self.kind == "-":
            self.what = hashlib.sha256(layer.extractfile(member).read()).hexdigest()[:12]
        elif self.kind == "l":
            self.what, self.mode = member.linkname, 0o777
        elif self.kind in "cb":
            self.what = "%d:%d" % (member.devmajor, member.devminor)

    def __str__(self):
        return " ".join(filter(None, [self.kind + "%04o" % self.mode, "%d:%d" % self.owner, self.what, json.dumps(self.xattrs) if self.xattrs else ""]))


def clean(name):
    return os.path.normpath("/" + name).lstrip("/")


def apply(tree, layer):
    """Lay a layer over a tree (a dict of nodes by path)."""
    here = {}
    for member in layer:
        path = clean(member.name)
        parent, base = os.path.split(path)
        if base == ".wh..wh..opq":
            for old in [p for p in tree if p.startswith(parent + "/") and p not in here]:
                del tree[old]
        elif base.startswith(".wh..wh."):
            continue
        elif base.startswith(".wh."):
            remove(tree, os.path.join(parent, base[4:]))
        else:
            node = tree[clean(member.linkname)] if member.type == tarfile.LNKTYPE else Node(layer, member)
            if path in tree and (node.kind != "d" or tree[path].kind != "d"):
                remove(tree, path)
            tree[path] = here[path] = node


def remove(tree, path):
    for old in [p for p in tree if p == path or p.startswith(path + "/")]:
        del tree[old]


def read(archive):
    """Returns the config and the lines that describe each path of the root file system, links with all the names they have."""
    with tarfile.open(archive) as t:
        def load(name):
            return json.load(t.extractfile(name))
        manifest = load("manifest.json")[0]
        tree = {}
        for name in manifest["Layers"]:
            member = t.getmember(name)
            if member.issym():  # docker stores a layer that occurs twice once
                name = os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
            with tarfile.open(fileobj=t.extractfile(name)) as layer:
                apply(tree, layer)
        names = {}
        for path, node in tree.items():
            names.setdefault(id(node), []).append(path)
        lines = {}
        for path, node in tree.items():
            if path:  # the root itself is in some layers only
                others = sorted(names[id(node)])
                lines[path] = str(node) + (" = " + ", ".join(others) if len(others) > 1 else "")
        return load(manifest["Config"]), lines
