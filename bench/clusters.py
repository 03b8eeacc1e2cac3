"""The data: clusters that are the same on every run, made once and kept.

`series` is like a TimescaleDB: hundreds of chunks with an index each, pgbench, JSON, and 2,000 tiny tables. `files` is
a server with 100,000 files of a page each. `segments` is a folder of real WAL of `series`.
"""

import json
import os
import pathlib
import shutil

from measure import run, until

TINY_TABLES = 2000
PAGE_BYTES = 8192
# About what a chunk takes with its index, so that a size becomes a count.
CHUNK_ROWS, CHUNK_MIB = 100_000, 9.9


class Sizes:
    """How large everything is, from the environment; small with --quick."""

    def __init__(self, quick):
        def number(name, usual, small):
            return int(os.environ.get(name, small if quick else usual))

        self.series_mib = number("BENCH_SERIES_MIB", 3072, 192)
        self.tiny_tables = number("BENCH_TINY_TABLES", TINY_TABLES, 100)
        self.files = number("BENCH_FILES", 100_000, 5_000)
        self.segments = number("BENCH_SEGMENTS", 64, 16)

    def words(self):
        return dict(vars(self))


class Cluster:
    """A server in a folder."""

    def __init__(self, folder, binaries, port):
        self.folder, self.binaries, self.port = pathlib.Path(folder), pathlib.Path(binaries), port
        self.data, self.socket = self.folder / "data", self.folder / "run"

    def environment(self):
        return {
            "PATH": f"{self.binaries}:/usr/local/bin:/usr/bin:/bin", "PGHOST": str(self.socket), "PGPORT": str(self.port),
            "PGUSER": "postgres", "PGDATABASE": "postgres", "LC_ALL": "C.UTF-8", "HOME": str(self.folder),
        }

    def run(self, *command):
        return run(list(command), self.environment())

    def sql(self, *statements):
        command = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1"]
        for statement in statements:
            command += ["-c", statement]
        return self.run(*command).strip()

    def init(self):
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.socket.mkdir(parents=True)
        for path in (self.folder, self.socket):
            shutil.chown(path, "postgres", "postgres")
        self.run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--data-checksums", "-N", "--locale=C",
                 "-E", "UTF8")
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as settings:
            settings.write(
                "listen_addresses = ''\nwal_level = replica\n"
                "archive_mode = on\narchive_command = '/bin/true'\nmax_wal_size = 8GB\ncheckpoint_timeout = 1h\n"
                "shared_buffers = 256MB\nautovacuum = off\nfsync = off\nmaintenance_work_mem = 256MB\n"
                "max_locks_per_transaction = 1024\nmax_parallel_maintenance_workers = 0\n")

    def start(self, *options):
        words = " ".join((f"-c port={self.port}", f"-c unix_socket_directories={self.socket}", *options))
        self.run("pg_ctl", "-D", str(self.data), "-l", str(self.folder / "log"), "-w", "-t", "120", "-o", words, "start")

    def stop(self):
        # Its archive may be gone by now, and a server that stops waits for its archiver.
        self.sql("alter system reset archive_command", "select pg_reload_conf()")
        self.run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop")

    def is_running(self):
        return (self.data / "postmaster.pid").exists()

    def archive_with(self, command):
        """The server's archiver runs this from now on; what waits is archived by it before this returns."""
        # The note of a former backup says that this server has an archive already, and wale begins no new one then.
        for note in [*(self.data / "pg_wal").glob("*.backup"), *(self.data / "pg_wal/archive_status").glob("*.backup.*")]:
            note.unlink()
        quoted = command.replace("'", "''")
        self.sql(f"alter system set archive_command = '{quoted}'", "select pg_reload_conf()")
        self.sql("select pg_create_restore_point('bench')", "select pg_switch_wal()")
        status = self.data / "pg_wal/archive_status"
        until(lambda: not any(status.glob("*.ready")), 120, f"the archiver with {command}")


def is_made(folder, sizes):
    note = folder / "made.json"
    return note.exists() and json.loads(note.read_text()) == sizes


def note_made(folder, sizes):
    (folder / "made.json").write_text(json.dumps(sizes))


def make_series(cluster, segments, sizes, say):
    wanted = {key: sizes.words()[key] for key in ("series_mib", "tiny_tables", "segments")}
    if is_made(cluster.folder, wanted):
        return
    say(f"making the time-series cluster, {sizes.series_mib} MiB")
    cluster.init()
    # What is made in bulk does not go through the WAL; the WAL of the bench is made after it.
    cluster.start("-c wal_level=minimal", "-c archive_mode=off", "-c max_wal_senders=0")
    chunks = int(sizes.series_mib * 0.7 / CHUNK_MIB)
    for first in range(0, chunks, 20):
        cluster.sql(*[part for chunk in range(first, min(first + 20, chunks)) for part in chunk_sql(chunk)])
    cluster.run("pgbench", "-i", "-q", "-I", "dtGvp", "-s", str(max(1, int(sizes.series_mib * 0.2 / 16))), "postgres")
    cluster.sql(
        "select setseed(0.25)",
        "create table events as select n as id, jsonb_build_object('kind', (array['login','order','page','error'])[1 + n % 4], "
        "'user', (random() * 50000)::int, 'path', '/shop/' || (random() * 900)::int, 'took', round((random() * 300)::numeric, 2), "
        f"'note', repeat('wale ', n % 7)) as body from generate_series(1, {sizes.series_mib * 550}) n",
        "create index on events (id)")
    tiny = [f"create table tiny_{n} (id int primary key, name text); insert into tiny_{n} select g, 'row ' || g * {n} "
            "from generate_series(1, 20) g" for n in range(sizes.tiny_tables)]
    for first in range(0, len(tiny), 100):
        cluster.sql(*tiny[first:first + 100])
    cluster.sql("vacuum freeze", "checkpoint")
    cluster.stop()
    make_segments(cluster, segments, sizes.segments, say)
    note_made(cluster.folder, wanted)


def chunk_sql(number):
    """One chunk: a reading of each of a thousand devices every ten seconds. The values walk and jump as measurements do."""
    return [
        f"select setseed({(number % 1000) / 1000})",
        f"create table chunk_{number} as select timestamptz '2026-01-01 00:00:00+00' + ({number} * {CHUNK_ROWS // 1000} + g / 1000) "
        "* interval '10 s' as time, g % 1000 as device, round((20 + 8 * sin(g / 4000.0) + random())::numeric, 2)::float8 as "
        "temperature, round((random() * 100)::numeric, 1)::float8 as load, random() as noise "
        f"from generate_series(0, {CHUNK_ROWS - 1}) g",
        f"create index on chunk_{number} (device, time)",
    ]


def make_segments(cluster, folder, count, say):
    """Half of the WAL is pgbench's, half of inserts; the archiver of the server itself puts it aside."""
    say(f"making {count} WAL segments")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    shutil.chown(folder, "postgres", "postgres")
    with open(cluster.data / "postgresql.auto.conf", "a", encoding="utf-8") as settings:
        settings.write(f"archive_command = 'cp %p {folder}/%f'\n")
    cluster.start()
    names = lambda: [path for path in folder.iterdir() if len(path.name) == 24 and path.stat().st_size == 16 << 20]
    load = 0
    while len(names()) < count:
        before = len(names())
        load += 1
        if before < count // 2:
            # After a checkpoint whole pages are written, as in the first minutes after any.
            cluster.sql("checkpoint")
            cluster.run("pgbench", "-n", "-c", "4", "-t", "1000", f"--random-seed={load}", "postgres")
        else:
            cluster.sql(
                f"select setseed({(load % 100) / 100})",
                "create table if not exists readings (time timestamptz, device int, value float8, words text)",
                f"insert into readings select timestamptz '2026-06-01 00:00:00+00' + g * interval '1 s', g % 500, random() * 1000, "
                f"'reading of ' || g % 97 from generate_series({load} * 100000, {load} * 100000 + 199999) g")
        status = cluster.data / "pg_wal/archive_status"
        until(lambda: not any(status.glob("*.ready")), 60, "the WAL to be put aside")
    cluster.sql("alter system reset archive_command", "checkpoint")
    cluster.stop()
    for surplus in sorted(names())[count:]:
        surplus.unlink()
    for path in folder.iterdir():
        if len(path.name) != 24:
            path.unlink()


def make_files(cluster, sizes, say):
    wanted = {"files": sizes.files}
    if is_made(cluster.folder, wanted):
        return
    say(f"making the cluster of {sizes.files} files")
    cluster.init()
    cluster.start("-c archive_mode=off")
    kinds = min(500, sizes.files)
    for first in range(0, kinds, 100):
        cluster.sql(*[
            f"create table t_{n} as select {n} + g as id, md5((g * {n})::text) as word, now() - now() as took "
            "from generate_series(1, 90) g" for n in range(first, min(first + 100, kinds))])
    cluster.sql("checkpoint")
    paths = cluster.sql(f"select pg_relation_filepath('t_' || n) from generate_series(0, {kinds - 1}) n").split()
    cluster.stop()
    # A page carries the number of its block and its checksum, but not the name of its file: so a copy of block 0 is a valid file.
    pages = [(cluster.data / path).read_bytes()[:PAGE_BYTES] for path in paths]
    base = (cluster.data / paths[0]).parent
    owner = (cluster.data / paths[0]).stat()
    for number in range(sizes.files):
        path = base / str(10_000_000 + number)
        path.write_bytes(pages[number % kinds])
        os.chown(path, owner.st_uid, owner.st_gid)
        path.chmod(0o600)
    note_made(cluster.folder, wanted)
