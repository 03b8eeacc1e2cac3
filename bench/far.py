#!/usr/bin/env python3
"""far.py - a base backup to a store far away, and its restore: how many stored bytes a second?

    far.py --wale [NAME=]PATH [--wale [NAME=]PATH …] [--away MILLISECONDS] [--codec none] [--rounds 1]

Run it as root on Debian, after run.py has made its data (it switches to postgres). The server of the time-series cluster is stopped, so
that nothing but the copy is measured. The store is light_s3.py with its objects in memory, behind distance.py. Both take processor time of
this machine; `idle` is what was left of it.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

from measure import machine_busy, stored_bytes, until, whole
from run import say
from stores import answers, empty, free_port

HERE = pathlib.Path(__file__).resolve().parent
HOME = pathlib.Path(os.environ.get("BENCH_DIR", "/var/tmp/wale-bench"))
MEMORY = pathlib.Path(os.environ.get("BENCH_MEMORY", "/dev/shm/wale-far"))
DATA = HOME / "full/series/data"


def started(away):
    """The store and the way to it: the port that wale is told, and the processes."""
    port, near = free_port(), free_port()
    programs = [[HERE / "light_s3.py", near, MEMORY / "objects"], [HERE / "distance.py", port, near, away]]
    processes = [subprocess.Popen([sys.executable, *map(str, program)]) for program in programs[:2 if away else 1]]
    for listens in (near, port)[:len(processes)]:
        until(lambda listens=listens: answers(listens), 10, f"what listens at port {listens}")
    return port if away else near, processes


def measured(wale, codec, away):
    empty(MEMORY)
    empty(MEMORY / "objects", "root")
    restored, log = empty(MEMORY / "restored"), HOME / "far.log"
    port, processes = started(away)
    words = {"PATH": os.environ["PATH"], "PGDATA": str(DATA), "WALE_S3_PREFIX": "s3://far/archive", "AWS_REGION": "us-east-1",
             "WALE_S3_ENDPOINT": f"http+path://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "wale", "AWS_SECRET_ACCESS_KEY": "wale-bench-secret",
             "WALE_COMPRESSION": codec, "WALE_LOG": "warn"}
    try:
        for work, command in (("backup", ["backup-push", "--while-offline", str(DATA)]), ("restore", ["backup-fetch", str(restored), "LATEST"])):
            busy = machine_busy()
            one = whole([wale, *command], words, f"far-{work}", log)
            stored = stored_bytes(MEMORY / "objects")
            idle = one["wall"] * os.cpu_count() - (machine_busy() - busy)
            yield work, {**one, "stored": stored, "idle": idle}
    finally:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(MEMORY)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wale", required=True, action="append")
    parser.add_argument("--away", type=float, default=50)
    parser.add_argument("--codec", default="none")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    programs = dict(it.split("=", 1) if "=" in it else ("wale", it) for it in options.wale)
    for number in range(options.rounds):
        for name in list(programs)[::-1 if number % 2 else 1]:
            for work, one in measured(programs[name], options.codec, options.away):
                say(f"  {work} {options.codec} {options.away:.0f} ms {name}: {one['stored'] / one['wall'] / 1e6:.0f} MB/s, {one['wall']:.2f} s, "
                    f"{one['stored'] / 1e6:.0f} MB, CPU {one['cpu']:.2f} s, idle {one['idle']:.2f} s, peak {one['peak'] >> 20} MB")


if __name__ == "__main__":
    main()
