"""Table and picture from made-up results: `python3 -m unittest discover -s bench`."""

import unittest
import xml.etree.ElementTree

import machine
import picture
import report


def row(work, peer, number, wall, **more):
    return {"work": work, "data": "series", "place": "memory", "asked": "zstd 1", "codec": "zstd 1", "peer": peer, "round": number,
            "wall": wall, "cpu": 2.0, "machine": 3.0, "peak": 50_000_000, "stored": 600_000_000, "requests": None, **more}


def results():
    wal = {"count": 10, "rate": 50.0, "p50": 0.018}
    return {
        "date": "2026-11-30", "rounds": 3, "machine": {"processor": "<one>", "cores": 2, "memory_gib": 23.5, "kernel": "6"},
        "data": {"series_bytes": 3_000_000_000, "series_files": 10_000, "files": 100_000, "segments": 64}, "postgresql": "15",
        "versions": {"wale": "0.1.0", "pgbackrest": "2.45"}, "missing": [], "failures": [],
        "limits": {"zstd 1, one core": (400.0, "MB/s"), "zstd 1, 2 cores": (720.0, "MB/s"),
                   "wale's zstd 1 encode, one core": (500.0, "MB/s")},
        "rows": [
            row("backup", "pgbackrest", 0, 8.0), row("backup", "wale", 0, 4.0), row("backup", "wale", 1, 40.0),
            row("backup", "wale", 2, 3.0), row("push", "wale", 0, 0.2, **wal),
            row("push", "pgbackrest", 0, 0.6, **{**wal, "rate": 16.0}),
        ],
    }


class Reports(unittest.TestCase):
    def test_the_table_has_medians_and_ratios(self):
        lines = report.table(results())
        self.assertIn("| **wale** | 4.00 | 1.00 | 2.00 | 3.00 | 50 | 600 |  |", lines)
        self.assertIn("| pgBackRest | 8.00 | 2.00 | 2.00 | 3.00 | 50 | 600 |  |", lines)
        self.assertTrue(any(line.startswith("| pgBackRest | 16.0 | 3.12 | 18.0 |") for line in lines), lines)

    def test_the_share_of_the_codec(self):
        # 3 GB in 4 s is 750 MB/s; 500 * 720 / 400 = 900.
        self.assertIn("zstd 1: 750 MB/s of 900 (83%)", report.shares(results())[1])

    def test_the_picture_is_well_formed_and_cuts_what_is_too_long(self):
        given = results()
        given["rows"] += [row("backup", "tar", 0, 4.0), row("backup", "walrus", 0, 99.0)]
        given["machine"]["processor"] = "<&>"
        drawn = picture.draw(report.sections(given["rows"]), given)
        bars = [part for part in xml.etree.ElementTree.fromstring(drawn).iter() if part.tag.endswith(("rect", "path"))]
        # The ground, three whole bars, the two pieces of the one that is cut, and two of WAL.
        self.assertEqual(len(bars), 1 + 3 + 2 + 2)
        self.assertIn("a database of 3.0 GB, and a WAL segment of 16 MiB<", drawn)

    def test_a_shown_result_of_zstd_is_read(self):
        text = "-b:  16777216 ->   1510371 (x11.11),  157.4 MB/s\r-b:  16777216 ->   1510371 (x11.11),  169.1 MB/s,  400.7 MB/s "
        self.assertEqual(machine.speeds(text), [169.1, 400.7])


if __name__ == "__main__":
    unittest.main()
