#!/usr/bin/env python3
"""replay.py - how fast a real server replays WAL that it fetches: with `cp` from a local folder, with wget and with `wale client` from
a sidecar.

    replay.py --wale [NAME=]PATH [--wale [NAME=]PATH …] [--segments 200] [--rounds 3] [--ways cp,wget,client] [--away MILLISECONDS]

Run it as root on Debian (it switches to postgres). The data lie in memory, so that the disk is not what is measured. The span is the
server's own: from "redo starts" to "redo done". `--away` lets the sidecar wait so long before each request to its store; `cp` stays local.
Processor time is that of the server, its commands and the sidecar together.
"""

import argparse
import os
import pathlib
import re
import shutil
import statistics

from clusters import Cluster
from measure import Failed, Group, run, start, until
from run import binaries, say
from stores import empty

HOME = pathlib.Path(os.environ.get("BENCH_DIR", "/var/tmp/wale-bench")) / "replay"
MEMORY = pathlib.Path(os.environ.get("BENCH_MEMORY", "/dev/shm/wale-replay"))
PORT, SIDECAR_PORT, LIMIT = 55470, 55471, 600


def environment(cluster, archive):
    return {**cluster.environment(), "PGDATA": str(cluster.data), "WALE_FILE_PREFIX": f"file://{archive}", "CRON_TIMING": "off",
            "WALE_LISTEN_ADDRESS": "127.0.0.1", "WALE_LISTEN_PORT": str(SIDECAR_PORT), "WALE_LOG": "warn",
            "WALE_COMPRESSION": "zstd", "WALE_COMPRESSION_LEVEL": "1"}


def make(cluster, wale, count):
    """A copy of the stopped server, then segments that are little work to replay: in the archive, and in a folder for cp."""
    cluster.init()
    cluster.start()
    cluster.sql("create table t (id int, value float8, words text)")
    cluster.stop()
    shutil.copytree(cluster.data, HOME / "base", symlinks=True)
    plain, archive = empty(HOME / "plain"), empty(HOME / "archive")
    script = HOME / "push.sh"
    lines = [f"export {name}='{value}'" for name, value in environment(cluster, archive).items()]
    script.write_text("\n".join(["#!/bin/sh", *lines, f'cp "$1" {plain}/ && exec {wale} wal-push "$1"', ""]))
    script.chmod(0o755)
    with open(cluster.data / "postgresql.auto.conf", "a", encoding="utf-8") as settings:
        settings.write(f"archive_command = '{script} %p'\n")
    cluster.start()
    while len(list(plain.iterdir())) < count:
        cluster.sql("insert into t select g, random(), 'reading of ' || g % 97 from generate_series(1, 200000) g", "truncate t",
                    "select pg_switch_wal()")
        until(lambda: not any((cluster.data / "pg_wal/archive_status").glob("*.ready")), 120, "the archiver")
    cluster.stop()


def command(way, wale, plain):
    url = f"http://127.0.0.1:{SIDECAR_PORT}"
    return {"cp": f'cp {plain}/%f "%p"', "wget": f'wget -q --tries=1 -O "%p" {url}/wal/%f',
            "client": f'{wale} client fetch %f "%p" --url {url}'}[way]


def copied(way, wale):
    """A server that is about to recover."""
    cluster = Cluster(MEMORY, binaries(), PORT + 2)
    empty(MEMORY)
    shutil.copytree(HOME / "base", cluster.data, symlinks=True)
    cluster.socket.mkdir()
    (cluster.data / "recovery.signal").touch()
    with open(cluster.data / "postgresql.auto.conf", "a", encoding="utf-8") as settings:
        settings.write(f"restore_command = '{command(way, wale, HOME / 'plain')}'\nlog_line_prefix = '%n '\narchive_mode = off\n"
                       f"port = {cluster.port}\nunix_socket_directories = '{cluster.socket}'\n"
                       "recovery_target_timeline = 'current'\n")
    for path, folders, files in os.walk(MEMORY):
        for name in [".", *folders, *files]:
            shutil.chown(pathlib.Path(path) / name, "postgres", "postgres")
    cluster.data.chmod(0o700)
    return cluster


def replay(way, wale, away=0):
    cluster, group = copied(way, wale), Group(f"replay-{way}")
    log, words = MEMORY / "server.log", environment(cluster, HOME / "archive")
    if away:
        words["WALE_FAULT_CONTROL"] = str(MEMORY / "faults")
        (MEMORY / "faults").write_text(f"slow {away}ms\n")
    log.touch()
    try:
        if way != "cp":
            start([wale, "serve"], words, group, HOME / "sidecar.log")
            ping = ["wget", "-q", "-O", "-", f"http://127.0.0.1:{SIDECAR_PORT}/startupz"]
            until(lambda: run(ping, os.environ, check=False), 30, "the sidecar")
        busy = group.busy()
        start([str(pathlib.Path(binaries()) / "postgres"), "-D", str(cluster.data)], cluster.environment(), group, log)
        until(lambda: "redo done" in log.read_text(errors="replace"), LIMIT, f"the replay with {way}")
        cpu = group.busy() - busy
        text = log.read_text(errors="replace")
        begun, done = (float(re.search(rf"^([0-9.]+) LOG:  {what}", text, re.M).group(1)) for what in ("redo starts", "redo done"))
        count = len(re.findall("restored log file", text))
        return {"wall": done - begun, "cpu": cpu, "count": count, "peak": group.peak}
    finally:
        group.close()
        shutil.rmtree(MEMORY)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wale", required=True, action="append")
    parser.add_argument("--segments", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default="cp,wget,client")
    parser.add_argument("--away", type=int, default=0)
    options = parser.parse_args()
    programs = dict(it.split("=", 1) if "=" in it else ("wale", it) for it in options.wale)
    note = HOME / "made"
    if not note.exists() or note.read_text() != str(options.segments):
        say(f"making {options.segments} segments")
        empty(HOME)
        make(Cluster(HOME / "origin", binaries(), PORT), next(iter(programs.values())), options.segments)
        note.write_text(str(options.segments))
    cases = [(way, name) for way in options.ways.split(",") for name in programs if way != "cp" or name == next(iter(programs))]
    found = {case: [] for case in cases}
    for number in range(options.rounds):
        turn = number % len(cases)
        for way, name in cases[turn:] + cases[:turn]:
            measured = replay(way, programs[name], options.away)
            if measured["count"] < options.segments:
                raise Failed(f"{way}: only {measured['count']} segments were replayed")
            found[way, name].append(measured)
            say(f"  {way} {name if way != 'cp' else ''}: {measured['count']} in {measured['wall']:.2f} s, CPU {measured['cpu']:.2f} s, "
                f"peak {measured['peak'] >> 20} MB")
    for (way, name), rounds in found.items():
        wall, cpu = (statistics.median(one[what] / one["count"] for one in rounds) * 1000 for what in ("wall", "cpu"))
        say(f"{way} {name if way != 'cp' else ''}: {1000 / wall:.0f} a second, {wall:.1f} ms and {cpu:.1f} ms of processor time each")


if __name__ == "__main__":
    main()
