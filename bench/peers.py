"""The programs that are compared: how each is set up, and the commands that its manual gives for each work.

Every peer runs with its own defaults, but for what makes them comparable: the codec, as many workers as the machine has
processors, an immediate checkpoint. A peer that cannot do a work says so with None.
"""

import dataclasses
import os
import pathlib
import re

from clusters import Cluster
from measure import run
from stores import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Place, empty

WORKERS = os.cpu_count() or 1


def last_word(text):
    return text.split()[-1]


@dataclasses.dataclass
class Stage:
    """Where a peer works: of which server, into which store, with which codec."""

    cluster: Cluster
    data: pathlib.Path
    place: Place
    codec: str
    level: int
    home: pathlib.Path
    archive: pathlib.Path = None

    def url(self, peer):
        return f"s3://{BUCKET}/{peer}"


class Peer:
    """What all have in common. `name` is the archive's too."""

    name = ""
    # One round is enough for what takes minutes.
    is_slow = False
    # A few segments are enough for what takes a second for each.
    segments = None

    def __init__(self, program):
        self.program = str(program)

    def version(self):
        return ""

    def can(self, work, stage):
        """Whether it does this work there."""
        raise NotImplementedError

    def codec_words(self, work):
        """What it compresses with in this work, where that is not what was asked for."""
        return None

    def begin(self, stage):
        """An empty archive and a configuration."""
        stage.home = empty(stage.home)
        stage.archive = stage.place.begin(self.name)

    def environment(self, stage):
        raise NotImplementedError

    def script(self, stage, *arguments):
        """A command for a shell, with all that it needs: PostgreSQL's archiver knows no environment of ours."""
        path = stage.home / "run.sh"
        if not path.exists():
            lines = [f"export {name}='{value}'" for name, value in self.environment(stage).items()]
            path.write_text("\n".join(["#!/bin/sh", *lines, f'exec {self.program} "$@"', ""]))
            path.chmod(0o755)
        return " ".join([str(path), *arguments])

    def backup(self, stage):
        raise NotImplementedError

    def restore(self, stage, into):
        raise NotImplementedError

    def daemon(self, stage):
        """A program that must run while WAL is pushed and fetched, or None."""
        return None

    def is_ready(self, stage):
        return True

    def push(self, stage, path):
        raise NotImplementedError

    def fetch(self, stage, name, path):
        raise NotImplementedError

    def archive_command(self, stage):
        return self.push(stage, "%p")


class Wale(Peer):
    """wale. `client` is how PostgreSQL reaches the sidecar."""

    name = "wale"

    def __init__(self, program, port, client="wget", name="wale", settings=None):
        super().__init__(program)
        self.port, self.client, self.name, self.settings = port, client, name, settings or {}

    def version(self):
        return last_word(run([self.program, "--version"], os.environ, user=None))

    def can(self, work, stage):
        return work in ("push", "fetch", "idle") or self.name == "wale"

    def environment(self, stage):
        environment = {
            **stage.cluster.environment(), "PGDATA": str(stage.data), "WALE_COMPRESSION": stage.codec,
            "WALE_LISTEN_PORT": str(self.port), "WALE_LISTEN_ADDRESS": "127.0.0.1", "CRON_TIMING": "off", "WALE_LOG": "warn",
            **self.settings,
        }
        if stage.codec == "zstd":
            environment["WALE_COMPRESSION_LEVEL"] = str(stage.level)
        if stage.place.s3:
            environment |= {
                "WALE_S3_PREFIX": stage.url(self.name), "WALE_S3_ENDPOINT": f"http+path://127.0.0.1:{stage.place.s3.port}",
                "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION,
            }
        else:
            environment["WALE_FILE_PREFIX"] = f"file://localhost{stage.archive}"
        return environment

    def backup(self, stage):
        return [self.program, "backup-push", str(stage.data)]

    def restore(self, stage, into):
        return [self.program, "backup-fetch", str(into), "LATEST"]

    def archive_command(self, stage):
        return self.script(stage, "wal-push", "%p")

    def daemon(self, stage):
        return [self.program, "serve"]

    def is_ready(self, stage):
        return run(["wget", "-q", "-O", "-", f"http://127.0.0.1:{self.port}/ping"], os.environ, check=False) != ""

    def push(self, stage, path):
        name = os.path.basename(path)
        if self.client == "wget":
            return f"wget -q --tries=1 --timeout=120 -O - http://127.0.0.1:{self.port}/wal-push/{name}"
        return f"{self.program} client push {name} --url http://127.0.0.1:{self.port}"

    def fetch(self, stage, name, path):
        if self.client == "wget":
            return f"wget -q --tries=1 -O {path} http://127.0.0.1:{self.port}/wal/{name}"
        return f"{self.program} client fetch {name} {path} --url http://127.0.0.1:{self.port}"


class WaleCommand(Wale):
    """wale without its sidecar: a process for each segment, as the other tools' commands are."""

    def can(self, work, stage):
        return work in ("push", "fetch")

    def daemon(self, stage):
        return None

    def is_ready(self, stage):
        return True

    def push(self, stage, path):
        return self.script(stage, "wal-push", path)

    def fetch(self, stage, name, path):
        return self.script(stage, "wal-fetch", name, path)


class PgBackRest(Peer):
    """pgBackRest, with bundles where its version has them; `is_async` archives and fetches ahead."""

    name = "pgbackrest"

    def __init__(self, program, is_async=False):
        super().__init__(program)
        self.is_async = is_async
        if is_async:
            self.name = "pgbackrest-async"
        self.has_bundles = "--repo-bundle" in run([self.program, "help", "backup"], os.environ, user=None)

    def version(self):
        return last_word(run([self.program, "version"], os.environ, user=None))

    def can(self, work, stage):
        return work in ("push", "fetch") if self.is_async else work != "idle"

    def begin(self, stage):
        super().begin(stage)
        codec = {"zstd": "zst"}.get(stage.codec, stage.codec)
        lines = [
            "[global]", f"log-path={stage.home}", f"lock-path={stage.home}/lock", f"spool-path={stage.home}/spool",
            "log-level-console=error", "log-level-file=off", f"compress-type={codec}", f"compress-level={stage.level}",
            f"process-max={WORKERS}", "start-fast=y",
        ]
        if self.has_bundles:
            lines.append("repo1-bundle=y")
        if self.is_async:
            lines.append("archive-async=y")
        if stage.place.s3:
            lines += [
                "repo1-type=s3", f"repo1-path=/{self.name}", f"repo1-s3-bucket={BUCKET}",
                f"repo1-s3-region={REGION}", f"repo1-s3-key={ACCESS_KEY}", f"repo1-s3-key-secret={SECRET_KEY}",
                "repo1-s3-endpoint=localhost", "repo1-s3-uri-style=path", "repo1-storage-host=127.0.0.1",
                f"repo1-storage-port={stage.place.s3.tls_port}", "repo1-storage-verify-tls=n",
            ]
        else:
            lines.append(f"repo1-path={stage.archive}")
        lines += ["[main]", f"pg1-path={stage.data}", f"pg1-socket-path={stage.cluster.socket}",
                  f"pg1-port={stage.cluster.port}", "pg1-user=postgres", ""]
        (stage.home / "pgbackrest.conf").write_text("\n".join(lines))
        run(self._words(stage, "stanza-create") + ([] if stage.cluster.is_running() else ["--no-online"]), self.environment(stage))

    def _words(self, stage, *words):
        return [self.program, f"--config={stage.home}/pgbackrest.conf", "--stanza=main", *words]

    def environment(self, stage):
        return stage.cluster.environment()

    def backup(self, stage):
        return self._words(stage, "--type=full", "backup")

    def restore(self, stage, into):
        return self._words(stage, f"--pg1-path={into}", "restore")

    def push(self, stage, path):
        return " ".join(self._words(stage, "archive-push", path))

    def fetch(self, stage, name, path):
        return " ".join(self._words(stage, "archive-get", name, path))


class Walrus(Peer):
    """WAL-RUS, which writes WAL-G's format; `has_daemon` sends WAL through its daemon."""

    name = "walrus"

    def __init__(self, program, has_daemon=False):
        super().__init__(program)
        self.has_daemon = has_daemon
        if has_daemon:
            self.name = "walrus-daemon"

    def version(self):
        return last_word(run([self.program, "--version"], os.environ, user=None))

    def can(self, work, stage):
        return work in ("push", "fetch", "idle") if self.has_daemon else work != "idle"

    def environment(self, stage):
        environment = {
            **stage.cluster.environment(), "WALG_COMPRESSION_METHOD": stage.codec, "WALG_COMPRESSION_LEVEL": str(stage.level),
            "WALG_LOG_LEVEL": "ERROR",
        }
        if stage.place.s3:
            environment |= {
                "WALG_S3_PREFIX": stage.url(self.name), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{stage.place.s3.port}",
                "AWS_S3_FORCE_PATH_STYLE": "true", "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_REGION": REGION,
            }
        else:
            environment["WALG_FILE_PREFIX"] = str(stage.archive)
        return environment

    def backup(self, stage):
        return [self.program, "backup-push", "--full", str(stage.data)]

    def restore(self, stage, into):
        return [self.program, "backup-fetch", str(into), "LATEST"]

    def _socket(self, stage):
        return stage.home / "daemon"

    def daemon(self, stage):
        return [self.program, "daemon", "--socket", str(self._socket(stage))] if self.has_daemon else None

    def is_ready(self, stage):
        return self._socket(stage).exists()

    def push(self, stage, path):
        if self.has_daemon:
            return f"{self.program} daemon-client --socket {self._socket(stage)} wal-push {path}"
        return self.script(stage, "wal-push", path)

    def fetch(self, stage, name, path):
        if self.has_daemon:
            return f"{self.program} daemon-client --socket {self._socket(stage)} wal-fetch {name} {path}"
        return self.script(stage, "wal-fetch", name, path)


class PgBaseBackup(Peer):
    """PostgreSQL's own, as a base line: one compressed tar, by the replication protocol."""

    name = "pg_basebackup"

    def version(self):
        return run([self.program, "--version"], os.environ, user=None).strip().split()[2]

    def can(self, work, stage):
        return work in ("backup", "restore") and not stage.place.s3

    def environment(self, stage):
        return stage.cluster.environment()

    def archive_command(self, stage):
        return "/bin/true"

    def backup(self, stage):
        workers = f",workers={WORKERS}" if stage.codec == "zstd" else ""
        return [self.program, "-D", str(stage.archive), "-Ft", f"--compress=client-{stage.codec}:level={stage.level}{workers}",
                "-X", "none", "-c", "fast"]

    def restore(self, stage, into):
        suffix = {"zstd": "zst"}.get(stage.codec, stage.codec)
        return ["sh", "-c", f"{stage.codec} -dcq '{stage.archive}/base.tar.{suffix}' | tar -x -C '{into}' && sync -f '{into}'"]


class BarmanCloud(Peer):
    """barman-cloud. Its backups know no zstd; its WAL does."""

    name = "barman-cloud"
    is_slow = True
    segments = 8

    def version(self):
        return last_word(run([f"{self.program}-wal-archive", "--version"], os.environ, user=None))

    def can(self, work, stage):
        return bool(stage.place.s3) and work != "idle"

    def codec_words(self, work):
        return "lz4" if work in ("backup", "restore") else None

    def environment(self, stage):
        return stage.cluster.environment() | {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": REGION}

    def _words(self, stage, verb, *arguments):
        return [f"{self.program}-{verb}", "--endpoint-url", f"http://127.0.0.1:{stage.place.s3.port}", "--addressing-style", "path",
                *arguments]

    def _shell(self, stage, verb, *arguments):
        lines = [f"{name}='{value}'" for name, value in self.environment(stage).items()]
        return " ".join(["env", *lines, *self._words(stage, verb, *arguments)])

    def backup(self, stage):
        return self._words(
            stage, "backup", "--lz4", "-J", str(WORKERS), "--immediate-checkpoint", "-h", str(stage.cluster.socket), "-p",
            str(stage.cluster.port), "-U", "postgres", "-n", "bench", stage.url(self.name), "main")

    def restore(self, stage, into):
        return self._words(stage, "restore", stage.url(self.name), "main", "bench", str(into))

    def push(self, stage, path):
        return self._shell(stage, "wal-archive", "--zstd", "--compression-level", str(stage.level), stage.url(self.name), "main", path)

    def fetch(self, stage, name, path):
        return self._shell(stage, "wal-restore", stage.url(self.name), "main", name, path)


class WalE(Peer):
    """WAL-E 1.1.1. It knows lzop only, its S3 client speaks signatures that no server of today takes, and it calls functions
    that PostgreSQL 15 has no more: WAL into a folder is what is left."""

    name = "wal-e"
    is_slow = True
    segments = 8

    def version(self):
        return run([self.program, "version"], os.environ, user=None).strip()

    def can(self, work, stage):
        return work in ("push", "fetch") and not stage.place.s3

    def codec_words(self, work):
        return "lzo"

    def environment(self, stage):
        return stage.cluster.environment() | {
            "WALE_FILE_PREFIX": f"file://localhost{stage.archive}", "WALE_LOG_DESTINATION": "stderr"}

    def push(self, stage, path):
        return self.script(stage, "wal-push", "-p", "0", path)

    def fetch(self, stage, name, path):
        return self.script(stage, "wal-fetch", "-p", "0", name, path)


class Tar(Peer):
    """`tar` and `zstd`, for what reading and writing so many files costs anybody."""

    name = "tar"

    def version(self):
        return re.split(r"\s+", run(["tar", "--version"], os.environ, user=None))[3]

    def can(self, work, stage):
        return work in ("backup", "restore") and not stage.place.s3

    def environment(self, stage):
        return stage.cluster.environment()

    def archive_command(self, stage):
        return "/bin/true"

    def backup(self, stage):
        return ["sh", "-c", f"tar -C '{stage.data}' --exclude=./pg_wal --exclude=./postmaster.pid -cf - . | "
                f"zstd -q -{stage.level} -T{WORKERS} -o '{stage.archive}/base.tar.zst' && sync -f '{stage.archive}'"]

    def restore(self, stage, into):
        return ["sh", "-c", f"zstd -dcq '{stage.archive}/base.tar.zst' | tar -x -C '{into}' && sync -f '{into}'"]
