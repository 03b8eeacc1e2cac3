#!/usr/bin/env python3
"""kindness.py - what a base backup costs the database beside it: transactions of pgbench alone, beside wale with and without its
bounds, and beside pg_basebackup.

    kindness.py --wale PATH [--scale 50] [--seconds 20] [--rounds 3]

Run it as root on Debian (it switches to postgres). Each round has a span of `--seconds` for each case, in turn. A backup that
ends within its span begins again; wale's rests for a second before, in which it waits for WAL: with a small `--scale` that
flatters it. The figure is the median of the rounds; on a machine that others load, too, it says little: look at the spread.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import time

from clusters import Cluster
from measure import become, run
from run import binaries, say
from stores import empty

HOME = pathlib.Path(os.environ.get("BENCH_DIR", "/var/tmp/wale-bench")) / "kindness"

CASES = {
    "alone": None,
    "wale": {},
    "wale, priority low": {"WALE_BACKUP_PRIORITY": "low"},
    "wale, half a processor": {"WALE_BACKUP_CPUS": "0.5"},
    "wale, half a processor, priority low": {"WALE_BACKUP_CPUS": "0.5", "WALE_BACKUP_PRIORITY": "low"},
    "pg_basebackup": "pg_basebackup",
}


def backup_command(case, wale, cluster, archive):
    """One backup, whole, into an empty folder."""
    if case == "pg_basebackup":
        words = f"pg_basebackup -D {archive}/copy -Ft --compress=server-zstd:1 -c fast -X none"
    else:
        # Nobody archives here, so it ends by saying so when all files are stored. What was there before is gone, which it would refuse.
        words = f"{wale} backup-push --new-archive {cluster.data} 2>&1 | tee -a {HOME}/wale.log | grep 'did not reach the archive'"
    return ["sh", "-c", f"while :; do rm -rf {archive}/*; {words} || exit 1; echo done; done"]


def begin_backups(case, wale, cluster, archive):
    empty(archive)
    settings = {} if case == "pg_basebackup" else case
    environment = {**cluster.environment(), "PGDATA": str(cluster.data), "WALE_FILE_PREFIX": f"file://{archive}",
                   "WALE_BACKUP_WAL_TIMEOUT": "1s", **settings}
    with open(HOME / "backup.log", "ab") as log:
        return subprocess.Popen(backup_command(case, wale, cluster, archive), env=environment, stdout=log, stderr=log,
                                start_new_session=True, preexec_fn=lambda: become("postgres"))


def transactions(cluster, seconds):
    text = cluster.run("pgbench", "-n", "-c", "2", "-j", "1", "-T", str(seconds), "postgres")
    return float(re.search(r"tps = ([0-9.]+)", text).group(1))


def span(case, options, cluster):
    backups = case is not None and begin_backups(case, options.wale, cluster, HOME / "archive")
    try:
        return transactions(cluster, options.seconds)
    finally:
        if backups:
            if backups.poll() is not None:
                raise SystemExit(f"kindness: no backup was beside it to the end: {HOME / 'backup.log'} says why")
            # Its own session, so that nothing else is met.
            os.killpg(backups.pid, signal.SIGTERM)
            backups.wait()
            time.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wale", required=True)
    parser.add_argument("--scale", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cluster = Cluster(HOME / "cluster", binaries(), 54339)
    HOME.mkdir(parents=True, exist_ok=True)
    shutil.chown(HOME, "postgres", "postgres")
    cluster.init()
    cluster.start("-c fsync=on", "-c synchronous_commit=off")
    try:
        say(f"filling pgbench, scale {options.scale}")
        cluster.run("pgbench", "-i", "-q", "-s", str(options.scale), "postgres")
        results = {name: [] for name in CASES}
        for number in range(options.rounds):
            names = list(CASES)
            for name in names[number % len(names):] + names[:number % len(names)]:
                results[name].append(span(CASES[name], options, cluster))
                say(f"{name}: {results[name][-1]:.0f} transactions a second")
    finally:
        cluster.stop()
    alone = statistics.median(results["alone"])
    print("\n| beside | transactions a second | of those alone | least and most |\n|---|---|---|---|")
    for name, rows in results.items():
        median = statistics.median(rows)
        print(f"| {name} | {median:.0f} | {100 * median / alone:.0f} % | {min(rows):.0f} to {max(rows):.0f} |")
    print(f"\nload of the machine: {run(['cat', '/proc/loadavg'], user=None).strip()}")


if __name__ == "__main__":
    main()
