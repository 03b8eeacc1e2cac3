"""The results as a table in Markdown, a picture and a file of raw numbers; into docs/performance.md where that is asked for."""

import json
import statistics

import picture

BEGIN, END = "<!-- figures: written by bench/run.py --publish -->", "<!-- end of the figures -->"
WORKS = {"backup": "Base backup", "restore": "Restore", "push": "WAL push, one by one", "fetch": "WAL fetch, one by one",
         "idle": "At rest"}
PLACES = {"memory": "folder in memory", "disk": "folder on disk", "s3": "S3 on loopback"}
NAMES = {"wale": "wale", "wale-client": "wale, by `wale client`", "wale-command": "wale, without a sidecar",
         "pgbackrest": "pgBackRest", "pgbackrest-async": "pgBackRest, asynchronous",
         "walrus": "WAL-RUS", "walrus-daemon": "WAL-RUS, daemon", "pg_basebackup": "pg_basebackup", "barman-cloud": "barman-cloud",
         "wal-e": "WAL-E", "tar": "tar and zstd"}


def medians(rows):
    """One row for each case and peer: the medians of its rounds."""
    groups = {}
    for row in rows:
        key = tuple(row[name] for name in ("work", "data", "place", "asked", "peer"))
        groups.setdefault(key, []).append(row)
    middle = []
    for same in groups.values():
        row = dict(same[0])
        for name, value in same[0].items():
            if isinstance(value, (int, float)) and name != "round":
                row[name] = statistics.median(one[name] for one in same)
        row["rounds"] = len(same)
        row["spread"] = (max(one["wall"] for one in same) - min(one["wall"] for one in same)) / row["wall"]
        middle.append(row)
    return middle


def sections(rows):
    """The cases in the order in which they are shown, each with its rows, wale first."""
    found = {}
    for row in medians(rows):
        found.setdefault((row["work"], row["data"], row["place"], row["asked"]), []).append(row)
    order = list(NAMES)
    works = list(WORKS)
    data = ["series", "files"]
    ordered = sorted(found.items(), key=lambda item: (data.index(item[0][1]), works.index(item[0][0])))
    return [(key, sorted(same, key=lambda row: order.index(row["peer"]))) for key, same in ordered]


def title(key, data):
    work, kind, place, asked = key
    what = f", {data['files']:,} small files" if kind == "files" else ""
    codec = "" if work == "idle" else f", {asked}"
    return f"{WORKS[work]}{what}, {PLACES[place]}{codec}"


def table(results):
    lines = []
    for key, rows in sections(results["rows"]):
        lines += ["", f"**{title(key, results['data'])}**", ""]
        lines += {"push": wal_table, "fetch": wal_table, "idle": idle_table}.get(key[0], backup_table)(rows)
    return lines


def first(rows):
    return next((row for row in rows if row["peer"] == "wale"), rows[0])


def name(row):
    words = NAMES[row["peer"]]
    differs = row["codec"] not in (row["asked"], "") and f" ({row['codec']})" or ""
    return f"**{words}**" if row["peer"] == "wale" else words + differs


def count(value):
    return "" if value is None else f"{value:,.0f}"


def backup_table(rows):
    lines = ["| | wall s | times wale's | CPU s | CPU s, machine | peak MB | MB | requests |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {name(row)} | {row['wall']:.2f} | {row['wall'] / first(rows)['wall']:.2f} | {row['cpu']:.2f} | {row['machine']:.2f} | "
            f"{row['peak'] / 1e6:.0f} | {row['stored'] / 1e6:,.0f} | {count(row.get('requests'))} |")
    return lines


def wal_table(rows):
    lines = ["| | a second | times wale's ms | p50 ms | CPU ms each | CPU ms each, machine | peak MB | requests each |",
             "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        requests = "" if row.get("requests") is None else f"{row['requests'] / row['count']:.1f}"
        lines.append(
            f"| {name(row)} | {row['rate']:.1f} | {first(rows)['rate'] / row['rate']:.2f} | {row['p50'] * 1000:.1f} | "
            f"{row['cpu'] / row['count'] * 1000:.0f} | {row['machine'] / row['count'] * 1000:.0f} | {row['peak'] / 1e6:.0f} | {requests} |")
    return lines


def idle_table(rows):
    lines = ["| | CPU ms a minute | memory MB | requests a minute |", "|---|---|---|---|"]
    for row in rows:
        each = 60 / row["wall"]
        lines.append(f"| {name(row)} | {row['cpu'] * 1000 * each:.0f} | {row['peak'] / 1e6:.1f} | {row['requests'] * each:.0f} |")
    return lines


def limits(results):
    lines = ["", "**The machine's own limits, in the same run**", "", "| | |", "|---|---|"]
    for what, (value, unit) in results["limits"].items():
        lines.append(f"| {what} | {value:,.0f} {unit} |" if value >= 10 else f"| {what} | {value:.2f} {unit} |")
    return lines


def shares(results):
    """How near wale's base backups come to its own codec on all cores, where that was measured."""
    found, cores, lines = results["limits"], results["machine"]["cores"], []
    for key, rows in sections(results["rows"]):
        work, kind, place, asked = key
        codec = asked.removesuffix(" 1") if asked.startswith("lz4") else asked
        alone = found.get(f"wale's {codec} encode, one core")
        if (work, kind, place) != ("backup", "series", "memory") or not alone:
            continue
        # All cores together do less than each alone would: they share caches and clocks. zstd shows by how much.
        limit = alone[0] * found[f"zstd 1, {cores} cores"][0] / found["zstd 1, one core"][0]
        reached = results["data"]["series_bytes"] / 1e6 / first(rows)["wall"]
        lines.append(f"{codec}: {reached:,.0f} MB/s of {limit:,.0f} ({reached / limit:.0%})")
    return ["", "wale's base backups beside its own codec on all cores: " + "; ".join(lines) + "."] if lines else []


def words(results):
    machine, data = results["machine"], results["data"]
    versions = ", ".join(f"{NAMES[peer]} {version}" for peer, version in results["versions"].items()
                         if peer not in ("wale-client", "wale-command", "pgbackrest-async", "walrus-daemon"))
    return [
        f"{results['date']}: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"PostgreSQL {results['postgresql']}. {data['series_bytes'] / 1e6:,.0f} MB in {data['series_files']:,} files; "
        f"{data['files']:,} files of 8 KiB; {data['segments']} WAL segments of 16 MiB. Medians of {results['rounds']} rounds and fewer, "
        f"{results.get('minutes', 0):.0f} minutes in all. {versions}.",
        *(["", "Left out: " + "; ".join(dict.fromkeys(results["missing"])) + "."] if results["missing"] else []),
        *(["", "Failed: " + "; ".join(text.splitlines()[0] for text in results["failures"]) + "."] if results["failures"] else []),
    ]


def write(results, folder, publish, repository):
    lines = words(results) + table(results) + limits(results) + shares(results)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    drawn = picture.draw(sections(results["rows"]), results)
    (folder / "performance.svg").write_text(drawn)
    print("\n".join(lines))
    if publish:
        (repository / "bench/results.json").write_text(json.dumps(results, indent=1) + "\n")
        (repository / "docs/performance.svg").write_text(drawn)
        page = repository / "docs/performance.md"
        text = page.read_text()
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        page.write_text("\n".join([before.rstrip("\n"), "", BEGIN, "", *lines, "", END]) + after)
