#!/usr/bin/env python3
"""Remakes the golden tar files. Run it in this folder; see README.md for what each file is.

    python3 make-tars.py [WAL-E partition, plain, GNU dialect] [the same, pax dialect]
"""
import io
import os
import subprocess
import sys
import tarfile
import tempfile

LONG = "base/16384/" + "long" * 30 + "/16385"      # 137 bytes
TARGET = "/mnt/" + "target" * 20                   # 125 bytes
TIME = 1577934245                                  # 2020-01-02 03:04:05 UTC


def python(path, dialect):
    with tarfile.open(path, "w", format=dialect) as out:
        def member(name, kind, body=b"", link="", mode=0o600):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, mode
            info.uid, info.gid, info.uname, info.gname = 999, 998, "postgres", "postgres"
            info.mtime = TIME + (0.25 if dialect == tarfile.PAX_FORMAT else 0)
            info.size = len(body)
            out.addfile(info, io.BytesIO(body))
        member("", tarfile.DIRTYPE, mode=0o700)
        member("base", tarfile.DIRTYPE, mode=0o700)
        member("PG_VERSION", tarfile.REGTYPE, b"15\n")
        if dialect != tarfile.USTAR_FORMAT:
            member(LONG, tarfile.REGTYPE, b"x" * 600)
            member("pg_wal", tarfile.SYMTYPE, link=TARGET)
        else:
            member("d" * 90 + "/" + "e" * 90, tarfile.REGTYPE, b"x" * 600)
            member("pg_wal", tarfile.SYMTYPE, link="/mnt/wal")
        member("base/naïve", tarfile.REGTYPE, b"")
        member("base/linked", tarfile.LNKTYPE, link="PG_VERSION")


def gnu_tar(path, dialect):
    with tempfile.TemporaryDirectory() as root:
        os.makedirs(f"{root}/{os.path.dirname(LONG)}")
        for name, body in [("PG_VERSION", "15\n"), (LONG, "x" * 600), ("base/naïve", "")]:
            with open(f"{root}/{name}", "w", encoding="ascii") as out:
                out.write(body)
        os.symlink(TARGET, f"{root}/pg_wal")
        os.link(f"{root}/PG_VERSION", f"{root}/base/linked")
        subprocess.run(
            ["tar", "-C", root, f"--format={dialect}", "--sort=name", "--owner=postgres:999", "--group=postgres:998",
             f"--mtime=@{TIME}", "--mode=u=rwX,go=", "-cf", os.path.abspath(path), "."], check=True)


def excerpt(source, path, wanted):
    """Copies the raw blocks of a few members: extended header, header and body as they stand."""
    with open(source, "rb") as data:
        blocks = data.read()
    out, at, pending = b"", 0, b""
    while any(blocks[at:at + 512]):
        header = blocks[at:at + 512]
        size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
        end = at + 512 + -(-size // 512) * 512
        if header[156:157] in b"xLK":
            pending += blocks[at:end]
        else:
            if header[:100].rstrip(b"\0").decode() in wanted:
                out += pending + blocks[at:end]
            pending = b""
        at = end
    out += bytes(1024)
    out += bytes(-len(out) % 10240)
    with open(path, "wb") as data:
        data.write(out)


os.makedirs("python-3.11", exist_ok=True)
os.makedirs("gnu-tar-1.34", exist_ok=True)
python("python-3.11/gnu.tar", tarfile.GNU_FORMAT)
python("python-3.11/ustar.tar", tarfile.USTAR_FORMAT)
python("python-3.11/pax.tar", tarfile.PAX_FORMAT)
gnu_tar("gnu-tar-1.34/gnu.tar", "gnu")
gnu_tar("gnu-tar-1.34/posix.tar", "posix")
for source, name in zip(sys.argv[1:], ["partition-gnu.tar", "partition-pax.tar"]):
    excerpt(source, f"wal-e-1.1.1/{name}",
            ["/", "pg_wal/", "pg_tblspc/", "PG_VERSION", "backup_label", "tablespace_map", "global/"])
