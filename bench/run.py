#!/usr/bin/env python3
"""run.py - wale and its peers on one machine: base backup, restore, WAL, many small files, rest. `make bench` calls it.

    run.py --wale PATH [--speed PATH] [--quick] [--rounds N] [--only WORDS] [--publish]
    run.py --draw results.json [--publish]

Run it as root on Debian (it switches to postgres). docs/performance.md has the method.

    BENCH_DIR (/var/tmp/wale-bench)      data sets, which are kept, archives on disk, results
    BENCH_MEMORY (/dev/shm/wale-bench)   archives and restored copies in memory; removed at the end
    BENCH_SERIES_MIB, BENCH_TINY_TABLES, BENCH_FILES, BENCH_SEGMENTS   sizes
    WALE_TEST_TOOLS (/var/tmp/wale-tools)   where scripts/setup.sh puts programs
"""

import argparse
import datetime
import glob
import json
import os
import pathlib
import shutil
import sys
import time

import clusters
import machine
import report
import work
from measure import Failed, run
from peers import BarmanCloud, PgBackRest, PgBaseBackup, Tar, Wale, WaleCommand, WalE, Walrus
from stores import S3, Place, empty, free_port, tool

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = os.environ.get("WALE_TEST_TOOLS", "/var/tmp/wale-tools")


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wale", help="the static binary")
    parser.add_argument("--speed", help="the example of wale-format, for the limit of wale's own codecs")
    parser.add_argument("--quick", action="store_true", help="small data, one round, short spans: does everything work?")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--only", default="", help="only cases whose name has one of these words")
    parser.add_argument("--peers", default="", help="only wale and peers of these names")
    parser.add_argument("--data", action="store_true", help="only make the data")
    parser.add_argument("--publish", action="store_true", help="write table, picture and raw results into the repository")
    parser.add_argument("--draw", help="no run: table and picture from these raw results")
    return parser.parse_args()


def peers(wale):
    """In the order of the first round. What is not installed is left out, and said."""
    port = free_port()
    makers = [
        lambda: Wale(wale, port),
        lambda: Wale(wale, port, client="wale", name="wale-client"),
        lambda: WaleCommand(wale, port, name="wale-command"),
        lambda: PgBackRest(tool("pgBackRest", shutil.which("pgbackrest"))),
        lambda: PgBackRest(tool("pgBackRest", shutil.which("pgbackrest")), is_async=True),
        lambda: Walrus(tool("WAL-RUS", f"{TOOLS}/bench/bin/walrus")),
        lambda: Walrus(tool("WAL-RUS", f"{TOOLS}/bench/bin/walrus"), has_daemon=True),
        lambda: PgBaseBackup(binaries() / "pg_basebackup"),
        lambda: BarmanCloud(tool("barman-cloud", f"{TOOLS}/barman/bin/barman-cloud-backup").removesuffix("-backup")),
        lambda: WalE(tool("WAL-E", f"{TOOLS}/wal-e/bin/wal-e")),
        lambda: Tar("tar"),
    ]
    found, missing = [], []
    for make in makers:
        try:
            found.append(make())
        except Failed as failed:
            missing.append(str(failed))
            say(str(failed))
    return found, missing


def binaries():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl"), key=lambda path: int(path.split("/")[4]))
    if not found:
        raise SystemExit("bench: no PostgreSQL here: run scripts/setup.sh bench")
    return pathlib.Path(found[-1]).parent


def cases(bench, series, files, segments, places, options):
    """What is done, by name."""
    memory, disk, s3 = places
    many, few = options.rounds, max(1, options.rounds - 1)
    into = bench.memory
    seconds, settle = (3, 2) if options.quick else (work.IDLE_SECONDS, work.SETTLE_SECONDS)
    return {
        "backup memory zstd 1": lambda: work.backups(bench, series, memory, "zstd", 1, many, into),
        "backup memory zstd 3": lambda: work.backups(bench, series, memory, "zstd", 3, many, into),
        "backup memory lz4": lambda: work.backups(bench, series, memory, "lz4", 1, many, into),
        "backup s3 zstd 1": lambda: work.backups(bench, series, s3, "zstd", 1, many, into),
        "backup disk zstd 1": lambda: work.backups(bench, series, disk, "zstd", 1, few, bench.home),
        "backup files zstd 1": lambda: work.backups(bench, files, memory, "zstd", 1, few, into),
        "wal memory": lambda: work.wal(bench, series, segments, memory, "zstd", 1, many),
        "wal disk": lambda: work.wal(bench, series, segments, disk, "zstd", 1, few),
        "wal s3": lambda: work.wal(bench, series, segments, s3, "zstd", 1, few),
        "idle": lambda: work.idle(bench, series, s3, seconds, settle),
    }


def measure(options, home, memory, logs):
    sizes = clusters.Sizes(options.quick)
    folder = home / ("quick" if options.quick else "full")
    folder.mkdir(exist_ok=True)
    series = clusters.Cluster(folder / "series", binaries(), free_port())
    files = clusters.Cluster(folder / "files", binaries(), free_port())
    segments = folder / "segments"
    clusters.make_series(series, segments, sizes, say)
    clusters.make_files(files, sizes, say)
    if options.data:
        return None
    wale = home / "bin/wale"
    wale.parent.mkdir(exist_ok=True)
    shutil.copy(options.wale, wale)
    found, missing = peers(wale)
    if options.peers:
        words = options.peers.split(",")
        found = [peer for peer in found if peer.name == "wale" or peer.name in words]
    bench = work.Bench(found, options.rounds, home, memory, logs, say)
    results = {
        "date": datetime.date.today().isoformat(), "quick": options.quick, "rounds": options.rounds, "machine": machine.words(),
        "data": {
            **sizes.words(), "series_bytes": work.stored_bytes(series.data / "base"), "series_files": count(series.data),
            "files_bytes": work.stored_bytes(files.data / "base"),
        },
        "postgresql": run([str(series.binaries / "postgres"), "--version"], os.environ, user=None).split()[2],
        "versions": {peer.name: peer.version() for peer in found}, "missing": missing,
    }
    say("the machine's limits")
    sample = machine.sample(series.data, memory / "sample", (16 if options.quick else 64) << 20)
    results["limits"] = machine.limits(sample, home, memory, options.speed)
    sample.unlink()
    s3 = S3(tool("s3s-fs", f"{TOOLS}/bin/s3s-fs"), memory / "s3", logs)
    try:
        places = Place("memory", memory / "archives"), Place("disk", home / "archives"), Place("s3", memory, s3)
        for name, case in cases(bench, series, files, segments, places, options).items():
            if not options.only or any(word in name for word in options.only.split(",")):
                say(f"== {name}")
                case()
    finally:
        s3.close()
    results["rows"], results["failures"] = bench.rows, bench.failures
    results["machine"]["load_after"] = os.getloadavg()[0]
    return results


def count(folder):
    return sum(len(names) for _, _, names in os.walk(folder))


def main():
    options = arguments()
    if options.draw:
        report.write(json.loads(pathlib.Path(options.draw).read_text()), pathlib.Path(options.draw).parent, options.publish, HERE.parent)
        return
    if os.getuid() != 0:
        raise SystemExit("bench: run as root (it switches to postgres)")
    if not options.wale and not options.data:
        raise SystemExit("bench: --wale PATH says which binary")
    options.rounds = options.rounds or (1 if options.quick else 3)
    home = pathlib.Path(os.environ.get("BENCH_DIR", "/var/tmp/wale-bench"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    memory = pathlib.Path(os.environ.get("BENCH_MEMORY", "/dev/shm/wale-bench"))
    logs = empty(home / "logs", "root")
    logs.chmod(0o755)
    empty(memory).chmod(0o755)
    begun = time.monotonic()
    try:
        results = measure(options, home, memory, logs)
    except Failed as failed:
        raise SystemExit(f"bench: {failed}") from failed
    finally:
        shutil.rmtree(memory)
    if results:
        results["minutes"] = round((time.monotonic() - begun) / 60, 1)
        folder = home / "results"
        folder.mkdir(exist_ok=True)
        report.write(results, folder, options.publish, HERE.parent)
        say(f"{results['minutes']} minutes; table, picture and raw results are in {folder}")
        for failure in results["failures"]:
            say(f"FAILED {failure}")
        sys.exit(1 if results["failures"] else 0)


if __name__ == "__main__":
    main()
