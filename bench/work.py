"""The works that are measured, each with every peer that can do it, in an order that changes from round to round."""

import filecmp
import os
import pathlib
import shutil

from measure import Failed, Group, one_by_one, start, stored_bytes, until, whole
from peers import Stage
from stores import empty

IDLE_SECONDS, SETTLE_SECONDS = 20, 10


class Bench:
    """What all works share."""

    def __init__(self, peers, rounds, home, memory, logs, say):
        self.peers, self.rounds, self.home, self.memory, self.logs, self.say = peers, rounds, home, memory, logs, say
        self.rows, self.failures, self.codecs = [], [], {}

    def turns(self, rounds, work, stage_of):
        """Every round, every peer, each round beginning with another one."""
        for number in range(rounds):
            peers = [peer for peer in self.peers if peer.can(work, stage_of(peer))]
            turn = number % len(peers) if peers else 0
            for peer in peers[turn:] + peers[:turn]:
                if number == 0 or not peer.is_slow:
                    yield number, peer

    def note(self, stage, work, peer, number, measured):
        codec = peer.codec_words(work) or f"{stage.codec} {stage.level}" if work != "idle" else ""
        row = {"work": work, "data": stage.cluster.folder.name, "place": stage.place.name, "asked": f"{stage.codec} {stage.level}",
               "codec": codec, "peer": peer.name, "round": number, **measured}
        self.rows.append(row)
        shown = " ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
                         for key, value in measured.items() if value is not None)
        self.say(f"  {work} {row['data']} {row['place']} {row['codec']} {peer.name}: {shown}")

    def stage(self, cluster, place, codec, level, peer, data=None):
        return Stage(cluster, data or cluster.data, place, codec, level, self.home / "peers" / peer.name)

    def attempt(self, what, work):
        """A peer that fails loses its row, and the run says so at its end; wale's failure ends the run."""
        try:
            work()
        except Failed as failed:
            if what.startswith("wale"):
                raise
            self.failures.append(f"{what}: {str(failed)[:600]}")
            self.say(f"  FAILED {what}: {str(failed)[:600]}")


def backups(bench, cluster, place, codec, level, rounds, into):
    """Base backup and restore. The server runs, and its archiver takes the peer's own command."""
    def stage_of(peer):
        return bench.stage(cluster, place, codec, level, peer)

    read_once(cluster.data)
    cluster.start()
    try:
        for number, peer in bench.turns(rounds, "backup", stage_of):
            bench.attempt(f"{peer.name} {cluster.folder.name} {place.name} {codec} {level}",
                          lambda number=number, peer=peer: _backup(bench, stage_of(peer), peer, number, into))
    finally:
        cluster.stop()


def read_once(folder):
    """Brings the files into the page cache, so that the first peer does not read them from the disk for all."""
    for path, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(path, name), "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass


def _backup(bench, stage, peer, number, into):
    cluster, place, log = stage.cluster, stage.place, bench.logs / f"{peer.name}.log"
    if peer.name == "tar" and cluster.folder.name != "files":
        return
    peer.begin(stage)
    cluster.archive_with(peer.archive_command(stage))
    asked = place.requests()
    measured = whole(peer.backup(stage), peer.environment(stage), peer.name, log)
    measured["requests"] = place.requests() - asked if place.s3 else None
    measured["stored"] = stored_bytes(stage.archive)
    bench.note(stage, "backup", peer, number, measured)
    # The archiver must not call a peer whose archive is gone.
    cluster.archive_with("/bin/true")
    target = empty(into / "restored")
    asked = place.requests()
    measured = whole(peer.restore(stage, target), peer.environment(stage), peer.name, log)
    measured["requests"] = place.requests() - asked if place.s3 else None
    measured["stored"] = stored_bytes(target)
    bench.note(stage, "restore", peer, number, measured)
    check_restored(cluster.data, target)
    shutil.rmtree(target)
    shutil.rmtree(stage.archive)


def check_restored(data, copy):
    """Every file of the databases is there in its size, and the largest are the same."""
    files = sorted(((path.stat().st_size, path.relative_to(data)) for path in (data / "base").rglob("*")
                    if path.is_file() and not path.name.startswith(("pg_internal", "pgsql_tmp"))), reverse=True)
    for size, path in files:
        if not (copy / path).exists() or (copy / path).stat().st_size != size:
            raise Failed(f"the restored copy lacks {path}, or it has another size")
    for _, path in files[:5]:
        if not filecmp.cmp(data / path, copy / path, shallow=False):
            raise Failed(f"the restored copy of {path} differs")


def wal(bench, cluster, segments, place, codec, level, rounds):
    """Segments that wait are pushed one by one, each by one command as PostgreSQL's archiver does, and fetched so."""
    names = sorted(path.name for path in segments.iterdir())
    source = _directory(cluster, bench.memory / "push")
    for name in names:
        shutil.copyfile(segments / name, source / "pg_wal" / name)
        shutil.chown(source / "pg_wal" / name, "postgres", "postgres")

    def stage_of(peer):
        return bench.stage(cluster, place, codec, level, peer, source)

    for number, peer in bench.turns(rounds, "push", stage_of):
        bench.attempt(f"{peer.name} WAL {place.name}",
                      lambda number=number, peer=peer: _wal(bench, stage_of(peer), peer, number, segments, names))
    shutil.rmtree(source)


def _directory(cluster, folder):
    """A data directory with what a peer looks at: whose it is, and the directory of WAL."""
    empty(folder)
    for path in ("global", "pg_wal/archive_status"):
        (folder / path).mkdir(parents=True)
    for path in ("PG_VERSION", "global/pg_control"):
        shutil.copyfile(cluster.data / path, folder / path)
    for path, folders, files in os.walk(folder):
        for name in folders + files:
            shutil.chown(pathlib.Path(path) / name, "postgres", "postgres")
    return folder


def _wal(bench, stage, peer, number, segments, names):
    names = names[:peer.segments] if peer.segments else names
    status = stage.data / "pg_wal/archive_status"
    for old in status.iterdir():
        old.unlink()
    for name in names:
        (status / f"{name}.ready").touch()
        shutil.chown(status / f"{name}.ready", "postgres", "postgres")
    peer.begin(stage)

    # WAL-RUS marks as done what it has pushed ahead; PostgreSQL's archiver does not ask for that then.
    def is_ready(index):
        return (status / f"{names[index]}.ready").exists()

    def archived(index):
        if is_ready(index):
            os.rename(status / f"{names[index]}.ready", status / f"{names[index]}.done")

    commands = [peer.push(stage, str(stage.data / "pg_wal" / name)) for name in names]
    measured = _with_daemon(bench, stage, peer, commands, is_ready, archived)
    measured["stored"] = stored_bytes(stage.archive)
    bench.note(stage, "push", peer, number, measured)

    received = empty(bench.memory / "received")
    stage.data = _directory(stage.cluster, bench.memory / "fetch")
    # A server that recovers has one; beside any other wale hands no file over.
    (stage.data / "recovery.signal").touch()
    place_of_command = stage.data / "pg_wal/RECOVERYXLOG"

    def fetched(index):
        os.rename(place_of_command, received / names[index])

    # The configuration names the other data directory.
    archive = stage.archive
    renew(stage, peer)
    stage.archive = archive
    commands = [peer.fetch(stage, name, str(place_of_command)) for name in names]
    measured = _with_daemon(bench, stage, peer, commands, lambda _: True, fetched)
    bench.note(stage, "fetch", peer, number, measured)
    for name in names:
        if not filecmp.cmp(received / name, segments / name, shallow=False):
            raise Failed(f"{peer.name} fetched {name} with other bytes")
    for folder in (received, stage.data, archive):
        shutil.rmtree(folder)


def renew(stage, peer):
    """The peer's configuration for another data directory, over the same archive."""
    script, configuration = stage.home / "run.sh", stage.home / "pgbackrest.conf"
    if script.exists():
        script.unlink()
    if configuration.exists():
        lines = configuration.read_text().splitlines()
        lines = [f"pg1-path={stage.data}" if line.startswith("pg1-path=") else line for line in lines]
        configuration.write_text("\n".join([*lines, ""]))


def _with_daemon(bench, stage, peer, commands, is_wanted, after):
    log, environment = bench.logs / f"{peer.name}.log", peer.environment(stage)
    group = Group(peer.name)
    try:
        daemon = peer.daemon(stage)
        if daemon:
            start(daemon, environment, group, log)
            until(lambda: peer.is_ready(stage), 30, f"{peer.name}'s daemon")
        asked = stage.place.requests()
        shell = {name: value for name, value in environment.items() if not name.startswith(("WALE_", "WALG_", "AWS_"))}
        measured = one_by_one(commands, is_wanted, after, shell, group, log)
        measured["requests"] = stage.place.requests() - asked if stage.place.s3 else None
        return measured
    finally:
        group.close()


def idle(bench, cluster, place, seconds, settle):
    """A sidecar or daemon that has nothing to do, beside a running server."""
    cluster.start()
    try:
        for peer in bench.peers:
            stage = bench.stage(cluster, place, "zstd", 1, peer)
            if peer.can("idle", stage) and peer.daemon(stage) and peer.name != "wale-client":
                bench.attempt(f"{peer.name} idle", lambda peer=peer, stage=stage: _idle(bench, stage, peer, seconds, settle))
    finally:
        cluster.stop()


def _idle(bench, stage, peer, seconds, settle):
    peer.begin(stage)
    group = Group(peer.name)
    try:
        start(peer.daemon(stage), peer.environment(stage), group, bench.logs / f"{peer.name}.log")
        until(lambda: peer.is_ready(stage), 30, f"{peer.name}'s daemon")
        # What is measured is a span of time, so here time is what is waited for.
        group._ends.wait(settle)
        busy, asked = group.busy(), stage.place.requests()
        group.peak = 0
        group._ends.wait(seconds)
        bench.note(stage, "idle", peer, 0, {
            "wall": float(seconds), "cpu": group.busy() - busy, "peak": group.peak, "requests": stage.place.requests() - asked})
    finally:
        group.close()
