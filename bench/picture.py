"""A picture of the results: bars, shorter is better, in SVG, readable on light and on dark."""

from html import escape

LABELS = {"wale": "wale", "wale-client": "wale client", "wale-command": "wale, no sidecar",
          "pgbackrest": "pgBackRest", "pgbackrest-async": "pgBackRest async",
          "walrus": "WAL-RUS", "walrus-daemon": "WAL-RUS daemon", "pg_basebackup": "pg_basebackup", "barman-cloud": "barman-cloud",
          "wal-e": "WAL-E", "tar": "tar, zstd"}
# The cases that the picture has, in two columns: key of a section, and its words.
PANELS = [
    (("backup", "series", "memory", "zstd 1"), "Base backup, folder, zstd 1"),
    (("restore", "series", "memory", "zstd 1"), "Restore, folder, zstd 1"),
    (("backup", "series", "memory", "lz4 1"), "Base backup, folder, lz4"),
    (("restore", "series", "memory", "lz4 1"), "Restore, folder, lz4"),
    (("backup", "series", "s3", "zstd 1"), "Base backup, S3"),
    (("restore", "series", "s3", "zstd 1"), "Restore, S3"),
    (("push", "series", "memory", "zstd 1"), "WAL push, folder, one segment"),
    (("fetch", "series", "memory", "zstd 1"), "WAL fetch, folder, one segment"),
    (("push", "series", "disk", "zstd 1"), "WAL push, folder on disk, one segment"),
    (("fetch", "series", "disk", "zstd 1"), "WAL fetch, folder on disk, one segment"),
    (("push", "series", "s3", "zstd 1"), "WAL push, S3, one segment"),
    (("fetch", "series", "s3", "zstd 1"), "WAL fetch, S3, one segment"),
    (("backup", "files", "memory", "zstd 1"), "Base backup of many small files"),
    (("restore", "files", "memory", "zstd 1"), "Restore of many small files"),
]
WIDTH, COLUMN, LABEL, BAR, ROW, HEAD, GAP = 880, 430, 118, 230, 19, 26, 16
# A bar longer than so many times the median is cut, and its end is drawn so.
CUT = 2.2

STYLE = """
:root { --ground: #ffffff; --text: #1f2328; --quiet: #59636e; --bar: #afb8c1; --own: #0969da; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0d1117; --text: #e6edf3; --quiet: #9198a1; --bar: #59636e; --own: #4493f8; }
}
.ground { fill: var(--ground); }
text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: var(--text); }
.title { font-weight: 600; font-size: 13px; }
.quiet { fill: var(--quiet); }
.own-text { font-weight: 600; }
.bar { fill: var(--bar); }
.own { fill: var(--own); }
"""


def draw(sections, results):
    found = dict(sections)
    panels = [(words, found[key]) for key, words in PANELS if key in found]
    parts, y = [], 62
    for left, right in zip(panels[::2], [*panels[1::2], None]):
        height = max(_height(panel) for panel in (left, right) if panel)
        for panel, x in ((left, 10), (right, 10 + COLUMN)):
            if panel:
                parts += _panel(panel, x, y)
        y += height + GAP
    machine = results["machine"]
    note = f"{results['date']}, {machine['cores']} cores, {machine['processor']}, PostgreSQL {results['postgresql']}. Shorter is better."
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" '
        'aria-label="wale beside other programs: time for base backup, restore and WAL">',
        f"<style>{STYLE}</style>", f'<rect class="ground" width="{WIDTH}" height="{y}" rx="6"/>',
        f'<text class="title" x="10" y="24">{escape(_size(results, {key for key, _ in PANELS if key in found}))}</text>',
        f'<text class="quiet" x="10" y="43">{escape(note)}</text>',
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def _size(results, keys):
    """What the shown cases are about."""
    data = results["data"]
    words = [f"a database of {data['series_bytes'] / 1e9:.1f} GB"]
    if any(key[0] == "push" for key in keys):
        words.append("a WAL segment of 16 MiB")
    if any(key[1] == "files" for key in keys):
        words.append(f"{data['files']:,} files")
    return f"Time for {', and '.join(words)}"


def _height(panel):
    return HEAD + ROW * len(panel[1])


def _panel(panel, x, y):
    words, rows = panel
    values = [_value(row) for row in rows]
    middle = sorted(values)[len(values) // 2]
    longest = min(max(values), CUT * middle)
    parts = [f'<text class="title" x="{x}" y="{y + 12}">{escape(words)}</text>']
    for number, (row, value) in enumerate(zip(rows, values)):
        top = y + HEAD + ROW * number
        length = max(2, BAR * min(value, longest) / longest)
        own = row["peer"].startswith("wale")
        kind = "own" if own else "bar"
        strong = ' class="own-text"' if own else ""
        left = x + LABEL
        parts.append(f'<text{strong} x="{x}" y="{top + 11}">{escape(LABELS[row["peer"]] + _codec(row))}</text>')
        if value > longest:
            end = left + length
            parts.append(f'<path class="{kind}" d="M{left} {top}h{length - 14:.1f}l6 13h-{length - 8:.1f}z"/>')
            parts.append(f'<path class="{kind}" d="M{end - 10:.1f} {top}h6l6 13h-6z"/>')
        else:
            parts.append(f'<rect class="{kind}" x="{left}" y="{top}" width="{length:.1f}" height="13" rx="2"/>')
        parts.append(f'<text{strong} x="{left + length + 6:.1f}" y="{top + 11}">{_words(row)}</text>')
    return parts


def _codec(row):
    return f" ({row['codec']})" if row["codec"] not in (row["asked"], "") else ""


def _value(row):
    return 1 / row["rate"] if "rate" in row else row["wall"]


def _words(row):
    if "rate" in row:
        taken = 1000 / row["rate"]
        return f"{taken:.0f} ms" if taken >= 10 else f"{taken:.1f} ms"
    return f"{row['wall']:.1f} s"
