"""The Dockerfiles that compare.py builds. Each is on its own, but for the base image, which is the first."""
import io, os, shutil, tarfile


def busybox(path):
    shutil.copy("/bin/busybox", path)


def archive(path):
    with tarfile.open(path, "w:gz") as t:
        info = tarfile.TarInfo("in/side")
        info.size, info.uid, info.mode = 5, 7, 0o640
        t.addfile(info, io.BytesIO(b"side\n"))


def odd_archive(path):
    """What archives can hold: links, modes, attributes, devices, a directory that comes after what is in it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as t:
        def add(name, **fields):
            info = tarfile.TarInfo(name)
            for k, v in fields.items():
                setattr(info, k, v)
            t.addfile(info, io.BytesIO(b"x" * info.size))
        add("late/f", size=3, mode=0o600, uid=3, gid=4)
        add("late", type=tarfile.DIRTYPE, mode=0o2711, uid=5, gid=6)
        add("suid", size=1, mode=0o4755)
        add("hard", type=tarfile.LNKTYPE, linkname="late/f", mode=0o600, uid=3, gid=4)
        add("soft", type=tarfile.SYMTYPE, linkname="/late/f", uid=9)
        add("cap", size=2, mode=0o755, pax_headers={"SCHILY.xattr.security.capability": "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"})
        add("pipe", type=tarfile.FIFOTYPE, mode=0o644)
        add("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add("./dots/../dots/f", size=1)
        add("empty", type=tarfile.DIRTYPE, mode=0o700)


def hard(other):
    return lambda path: os.link(os.path.join(os.path.dirname(path), other), path)


def with_mode(mode, text="x\n"):
    def write(path):
        open(path, "w").write(text)
        os.chmod(path, mode)
    return write


def link(target):
    return lambda path: os.symlink(target, path)


def case(dockerfile, args=(), files=None, twice=False, builders=(1, 2)):
    return dict(dockerfile=dockerfile, args=list(args), files=files or {}, twice=twice, builders=builders)


FILES = {"a.txt": "a\n", "b.txt": "b\n", "d/c.txt": "c\n", "d/e/f.txt": "f\n"}

CASES = {
    "base": case('''FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox","sh","-c","/bin/busybox --install -s /bin && mkdir -p /etc /tmp /root && echo root:x:0:0::/root:/bin/sh > /etc/passwd && echo app:x:1000:1000::/:/bin/sh >> /etc/passwd && echo app:x:1000: > /etc/group"]
ENV PATH=/bin
CMD ["sh"]
''', files={"busybox": busybox}),
    "from-only": case("FROM base:1\n"),
    "run": case("FROM base:1\nRUN echo out; sleep 1; echo err >&2\nRUN true\nRUN echo x > /x\n"),
    "run-twice": case("FROM base:1\nRUN echo x > /x\nENV a=b\nRUN echo $a > /y\nCOPY a.txt /\nRUN cat /a.txt\n", files=FILES, twice=True),
    "no-cache": case("FROM base:1\nRUN echo x > /x\nENV a=b\n", args=["--no-cache"], twice=True),
    "rm-false": case("FROM base:1\nRUN echo x > /x\nENV a=b\n", args=["--rm=false", "--no-cache"]),
    "force-rm": case("FROM base:1\nRUN exit 3\n", args=["--force-rm"]),
    "run-fails": case("FROM base:1\nRUN echo before; exit 7\nRUN echo never\n"),
    "run-exec-form": case('FROM base:1\nRUN ["echo", "a b", "c"]\nRUN ["sh", "-c", "exit 5"]\n'),
    "env": case('FROM base:1\nENV a=1 b="two words"\nENV c three of them\nENV a=2 d=$a e=${nope:-fallback}\nRUN echo "$a $b $c $d $e"\n'),
    "label": case('FROM base:1\nLABEL z=1 a="x y"\nLABEL multi="a\\\nb"\nLABEL a=new\n'),
    "label-flag": case("FROM base:1\nLABEL z=1\n", args=["--label", "k=v", "--label", "b=$x"]),
    "maintainer": case("FROM base:1\nMAINTAINER me <me@example.com>\nRUN true\n"),
    "cmd": case('FROM base:1\nCMD echo hi\nCMD ["echo", "hi"]\nCMD ["a\\"b"]\n'),
    "entrypoint": case('FROM base:1\nENTRYPOINT echo hi\n'),
    "entrypoint-cmd": case('FROM base:1\nCMD ["x"]\nENTRYPOINT ["echo", "y"]\nRUN echo z\n'),
    "expose": case("FROM base:1\nENV p=80\nEXPOSE $p 90/udp 1000-1002\n"),
    "user": case("FROM base:1\nUSER app\nRUN id -u\nUSER 5:6\nRUN id -u; id -g\n"),
    "workdir": case("FROM base:1\nWORKDIR /a/b\nWORKDIR c\nRUN pwd\nENV d=/e\nWORKDIR $d/f\nRUN pwd\nWORKDIR /tmp\n", twice=True),
    "volume": case('FROM base:1\nRUN mkdir /v && echo kept > /v/kept\nVOLUME /v /new\nVOLUME ["/w x"]\nRUN cat /v/kept; echo gone > /v/gone; echo gone > /new/gone\nRUN ls /v /new\n'),
    "stopsignal": case("FROM base:1\nSTOPSIGNAL SIGKILL\n"),
    "stopsignal-bad": case("FROM base:1\nSTOPSIGNAL NOSUCH\n"),
    "shell": case('FROM base:1\nSHELL ["/bin/sh", "-ec"]\nRUN false; echo no\n'),
    "shell-cmd": case('FROM base:1\nSHELL ["/bin/sh", "-ec"]\nCMD true\nENTRYPOINT true\nLABEL a=b\n'),
    "healthcheck": case('FROM base:1\nHEALTHCHECK --interval=5s --retries=2 CMD true\nHEALTHCHECK CMD ["a", "b"]\nHEALTHCHECK NONE\nRUN true\n'),
    "onbuild-base": case('FROM base:1\nONBUILD RUN echo trigger\nONBUILD COPY a.txt /t/\nONBUILD ENV k=v\n'),
    "onbuild-child": case('FROM cmp/onbuild-base\nRUN echo child $k\n', files=FILES),
    "arg": case("ARG tag=1\nFROM base:$tag\nARG tag\nARG x=default\nARG y\nRUN echo $tag $x $y\nENV x=env\nRUN echo $x\n", args=["--build-arg", "y=given"]),
    "arg-twice": case("FROM base:1\nARG y\nRUN echo $y\nRUN echo more\n", args=["--build-arg", "y=given"], twice=True),
    "arg-unused": case("FROM base:1\nRUN true\n", args=["--build-arg", "nope=1"]),
    "arg-proxy": case("FROM base:1\nRUN echo $HTTP_PROXY $http_proxy\n", args=["--build-arg", "HTTP_PROXY=http://p"]),
    "arg-scopes": case("FROM base:1 AS one\nARG a=1\nRUN echo $a\nFROM base:1\nRUN echo [$a]\n"),
    "copy": case("FROM base:1\nCOPY a.txt /x\nCOPY a.txt b.txt /many/\nCOPY d /dir\nCOPY d/ /dir2/\nCOPY *.txt /wild/\nCOPY [\"a.txt\", \"/with space/\"]\nRUN find /x /many /dir /dir2 /wild '/with space' | sort; ls -ln /x | cut -c1-20\n", files=FILES, twice=True),
    "copy-relative": case("FROM base:1\nWORKDIR /w\nCOPY a.txt .\nCOPY b.txt sub/\nCOPY a.txt ./renamed\nCOPY d ./\nRUN find /w | sort\n", files=FILES),
    "copy-chown": case("FROM base:1\nCOPY --chown=app:app a.txt /x\nCOPY --chown=7 d /d\nRUN ls -lnd /x /d /d/* | cut -d' ' -f1-8 | cut -c1-30\n", files=FILES),
    "copy-link": case("FROM base:1\nCOPY ln /ln\nCOPY d /d\nRUN ls -l /ln /d/dangling | cut -c1-10\n", files=dict(FILES, ln=link("a.txt"), **{"d/dangling": link("nowhere")})),
    "copy-missing": case("FROM base:1\nCOPY nope /\n"),
    "copy-none": case("FROM base:1\nCOPY nope* /\n", files=FILES),
    "copy-outside": case("FROM base:1\nCOPY ../x /\n"),
    "copy-many-to-file": case("FROM base:1\nCOPY a.txt b.txt /x\n", files=FILES),
    "copy-url": case("FROM base:1\nCOPY http://127.0.0.1:1/x /x\n"),
    "copy-from": case("FROM base:1 AS one\nRUN mkdir /o && echo o > /o/f && chown 5:5 /o/f\nFROM base:1\nCOPY --from=one /o /p\nCOPY --from=0 /o/f /q\nRUN ls -ln /p/f /q | cut -c1-30\n"),
    "copy-from-image": case("FROM base:1\nCOPY --from=base:1 /etc/passwd /copied\nRUN wc -l /copied\n"),
    "copy-from-bad": case("FROM base:1\nCOPY --from=3 /x /y\n"),
    "copy-from-self": case("FROM base:1\nCOPY --from=0 /x /y\n"),
    "copy-into-volume": case("FROM base:1\nVOLUME /v\nCOPY a.txt /v/\nRUN ls /v; echo gone > /v/b\nRUN ls /v\n", files=FILES),
    "add-archive": case("FROM base:1\nADD t.tar.gz /t/\nCOPY t.tar.gz /copied/\nRUN cat /t/in/side; ls -ln /t/in/side /copied/* | cut -c1-20\n", files={"t.tar.gz": archive}),
    "stages": case("FROM base:1 AS one\nRUN echo 1 > /1\nFROM one AS two\nRUN echo 2 > /2\nFROM base:1 AS unused\nRUN echo unused\nFROM two\nRUN cat /1 /2\n"),
    "target": case("FROM base:1 AS one\nRUN echo 1\nFROM base:1 AS two\nRUN echo 2\n", args=["--target", "one"]),
    "target-missing": case("FROM base:1\nRUN echo 1\n", args=["--target", "nope"]),
    "stage-name-twice": case("FROM base:1 AS a\nFROM base:1 AS a\n"),
    "scratch": case("FROM scratch\nCOPY a.txt /\nLABEL x=y\n", files=FILES),
    "scratch-only": case("FROM scratch\n"),
    "scratch-label": case("FROM scratch\nLABEL x=y\n", twice=True),
    "dockerignore": case("FROM base:1\nCOPY . /c/\nRUN find /c | sort\n", files=dict(FILES, **{".dockerignore": "*.txt\n!b.txt\nDockerfile\n.dockerignore\nd/e\n"})),
    "dockerfile-name": case("FROM base:1\nRUN echo wrong\n", files={"Other": "FROM base:1\nRUN echo right\n"}, args=["-f", "Other"]),
    "unknown-instruction": case("FROM base:1\nFROB x\n"),
    "bad-env": case("FROM base:1\nENV\n"),
    "empty": case("# nothing\n"),
    "no-from": case("RUN echo\n"),
    "no-from-args": case("ARG a=b\n", builders=(1,)),
    "mount": case("FROM base:1\nRUN --mount=type=cache,target=/x true\n"),
    "run-network": case("FROM base:1\nRUN --network=none true\n"),
    "chmod": case("FROM base:1\nCOPY --chmod=700 a.txt /\n", files=FILES),
    "bad-flag": case("FROM base:1\nCOPY --nope=1 a.txt /\n", files=FILES),
    "comments": case("# syntax=docker/dockerfile:1\n# escape=`\nFROM base:1\nRUN echo a `\n  # comment\n  b\n"),
    "empty-continuation": case("FROM base:1\nRUN echo a \\\n\n  b\n"),
    "quiet": case("FROM base:1\nRUN echo quiet\n", args=["-q"]),
    "quiet-fails": case("FROM base:1\nRUN echo loud; exit 4\n", args=["-q"]),
    "no-image": case("FROM nosuch.invalid/x:1\n"),
    "tags": case("FROM base:1\nRUN true\n", args=["-t", "cmp/second:2", "-t", "localhost:5000/third"]),
    "variable-from": case("ARG b=base\nARG v=1\nFROM ${b}:${v}\nRUN true\n", args=["--build-arg", "v=1"]),
    "blank-from": case("ARG b\nFROM $b\n"),
    "shm-ulimit": case("FROM base:1\nRUN ulimit -n; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2\n", args=["--shm-size", "32m", "--ulimit", "nofile=123:456"]),
    "add-host": case("FROM base:1\nRUN grep made.up /etc/hosts\n", args=["--add-host", "made.up:1.2.3.4"]),
    "cache-from": case("FROM base:1\nRUN echo x > /x\nRUN echo more\n", args=["--cache-from", "cmp/run-twice"], twice=True),
    "long-output": case("FROM base:1\nRUN seq 1 3000\n"),
    "binary-output": case("FROM base:1\nRUN printf 'a\\000b\\n'\n"),
    "tree": case("FROM base:1\nCOPY --chown=1:2 d /own/\nCOPY . /all/\nRUN mkdir -m 1777 /sticky && ln -s nowhere /dangling && echo x > /f && ln /f /hard && chmod 640 /f && mkfifo /pipe && rm /bin/tr\n"
                 "RUN find /own /all /sticky /dangling /f /hard /pipe /bin/tr -exec stat -c '%n %A %u:%g %h %s' {} + | grep -v ' d.* [0-9]* [0-9]*$' | sort; test ! -e /bin/tr\n", files=dict(FILES, ln=link("a.txt"))),
    "overwrite": case("FROM base:1\nRUN mkdir -p /d/e /t && echo old > /d/c.txt && ln -s /t /lnk\nCOPY d /d\nCOPY a.txt /lnk/\nCOPY a.txt /t/new/deep/\nRUN cat /d/c.txt /d/e/f.txt /t/a.txt /t/new/deep/a.txt; ls -l /lnk | wc -l\n", files=FILES),
    "dir-wildcard": case("FROM base:1\nCOPY d* /x/\nCOPY d/*/f.txt /y/\nRUN find /x /y | sort\n", files=FILES),
    "onbuild-bad": case("FROM base:1\nONBUILD FROM x\n"),
    "user-name-bad": case("FROM base:1\nUSER nosuch\nRUN id\n"),
    "env-in-copy": case("FROM base:1\nENV src=a.txt dst=/e/\nCOPY $src $dst\nRUN cat /e/a.txt\n", files=FILES),
    "missing-program": case('FROM base:1\nRUN ["nosuch", "x"]\n'),
    "signal-exit": case("FROM base:1\nRUN kill -9 $$\n"),
    "changed-label": case("FROM base:1\nLABEL x=y\nRUN echo x > /x\n"),
    "scratch-run": case("FROM scratch\nCOPY busybox /bin/sh\nRUN echo x > /x\n", files={"busybox": busybox}),
    "scratch-stage": case("FROM base:1 AS one\nRUN mkdir -p /out/d && echo x > /out/d/x && ln /out/d/x /out/y && ln -s x /out/d/l\nFROM scratch\nCOPY --from=one /out /\n"),
    "add-odd-archive": case("FROM base:1\nADD odd.tar /o/\nADD odd.tar /\n", files={"odd.tar": odd_archive}),
    "add-over": case("FROM base:1\nRUN mkdir -m 700 /o && mkdir /o/suid-not && ln -s /tmp /o/late && echo old > /o/cap\nADD odd.tar /o/\n", files={"odd.tar": odd_archive}),
    "copy-hard-links": case("FROM base:1\nCOPY . /c/\nCOPY a.txt b-hard /d/\n", files={"a.txt": "a\n", "b-hard": hard("a.txt"), "sub/x": "x\n"}),
    "copy-modes": case("FROM base:1\nCOPY . /c/\nCOPY --chown=3:4 s g /m/\n", files={"s": with_mode(0o755), "g": with_mode(0o640), "r": with_mode(0o400), "w": with_mode(0o777)}),
    "copy-into-dir": case("FROM base:1\nRUN mkdir -m 1750 /t && chown 8:9 /t && mkdir -m 700 /t/e\nCOPY d /t\nCOPY d/c.txt /t/deep/er/\n", files=FILES),
    "delete-and-again": case("FROM base:1\nRUN mkdir -p /x/y && echo 1 > /x/y/1 && echo 2 > /x/2 && ln /x/2 /two\nRUN rm -r /x && mkdir /x && echo 3 > /x/3\nRUN rm /two && ln -s x /two\nRUN rm -r /tmp && echo file > /tmp\n"),
    "change-modes": case("FROM base:1\nRUN echo 1 > /f && ln /f /g && mkdir /d\nRUN chmod 600 /f && chown 4:5 /d\nRUN touch /d && ln /g /h\n"),
    "workdir-user": case("FROM base:1\nUSER app\nWORKDIR /made/by\nRUN touch /tmp/mine || true\nCOPY a.txt ./\n", files=FILES),
    "workdir-link": case("FROM base:1\nRUN mkdir /real && ln -s /real /lnk\nWORKDIR /lnk/sub\nCOPY a.txt .\n", files=FILES),
    "etc-files": case("FROM base:1\nRUN rm -f /etc/hosts /etc/resolv.conf /etc/hostname; echo mine > /etc/mine; cat /etc/hostname | wc -l\nCOPY a.txt /etc/hosts\nRUN true\n", files=FILES),
    "special-names": case("FROM base:1\nRUN mkdir '/a b' && touch '/a b/\xe4 c' '/-x' '/#y' /.hidden && ln -s 'a b' '/l k'\n"),
    "arg-env": case("FROM base:1\nARG v=1\nENV v=${v}2 w=${nope:+x} u=$v\nARG v=3\nRUN echo $v $w $u\n"),
    "env-escapes": case("FROM base:1\nENV a=b\\ c d='e $a' e=\"f $a\" f=\\$a\nRUN echo \"$a|$d|$e|$f\"\n"),
    "expose-bad": case("FROM base:1\nEXPOSE 1000-999\n"),
    "copy-dir-slash": case("FROM base:1\nRUN echo f > /f\nCOPY d /f\n", files=FILES),
    "copy-dot": case("FROM base:1\nWORKDIR /w\nCOPY . .\nCOPY ./d ./d2\nCOPY d/. e/\n", files=FILES),
    "add-not-archive": case("FROM base:1\nADD t.tar.gz a.txt /t/\nADD a.txt /u\n", files=dict(FILES, **{"t.tar.gz": "not one"})),
    "from-digest-bad": case("FROM base@sha256:1234\n"),
    "from-platform": case("FROM --platform=linux/amd64 base:1\nRUN uname -m\n"),
    "healthcheck-bad": case("FROM base:1\nHEALTHCHECK --interval=x CMD true\n"),
    "cmd-bad-json": case("FROM base:1\nCMD ['echo', 'x']\nENTRYPOINT [ \"a\", b ]\n"),
    "label-quotes": case("FROM base:1\nLABEL \"a b\"=\"c d\" e='f g' h=i\\ j\n"),
}
