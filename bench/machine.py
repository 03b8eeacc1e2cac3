"""The machine's own limits, taken in the same run: what no program could beat here."""

import os
import pathlib
import re
import statistics
import subprocess
import time

from measure import run


def words(path="/proc/cpuinfo"):
    """What the machine is, without its name."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path(path).read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "processor": model.group(1).strip() if model else "unknown", "cores": os.cpu_count(),
        "memory_gib": round(int(memory.group(1)) / 1048576, 1), "kernel": os.uname().release.split("-")[0],
        "load_before": os.getloadavg()[0],
    }


def limits(sample, disk, memory, speed):
    """All of them, by name: (value, unit)."""
    found = {}
    for name, command in codecs(sample).items():
        one = _codec(command, 1)
        found[f"{name}, one core"] = (one[0], "MB/s compressed")
        found[f"{name}, reading, one core"] = (one[1], "MB/s of plain data")
        found[f"{name}, {os.cpu_count()} cores"] = (_codec(command, os.cpu_count())[0], "MB/s compressed")
    if speed:
        for name, value in _speed(speed, sample).items():
            found[name] = (value, "MB/s")
    for name, folder in (("disk", disk), ("memory", memory)):
        found[f"{name}, writing 1 GiB and fsync"] = (_write(folder), "MB/s")
    found["disk, fsync of 8 KiB"] = (_fsync(disk), "ms, median")
    return found


def sample(data, into, bytes_max):
    """A cut through the relation files of some size, as one file."""
    paths = sorted(path for path in (data / "base").rglob("*") if path.is_file() and path.stat().st_size >= 1 << 20)
    step = max(1, sum(path.stat().st_size for path in paths) // bytes_max)
    with open(into, "wb") as output:
        for path in paths[::step]:
            output.write(path.read_bytes())
        output.truncate(min(output.tell(), bytes_max))
    return into


def codecs(path):
    return {
        "zstd 1": ["zstd", "-b1", "-e1", "-i1", str(path)],
        "zstd 3": ["zstd", "-b3", "-e3", "-i1", str(path)],
        "lz4 1": ["lz4", "-b1", "-e1", "-i1", str(path)],
    }


def _codec(command, count):
    """The sum of so many processes at the same time: megabytes a second of plain data to compress, and to decompress."""
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(count)]
    texts = [process.communicate()[0].decode(errors="replace") for process in running]
    return [sum(pair) for pair in zip(*map(speeds, texts))]


def speeds(text):
    """Of "16777216 -> 1510371 (x11.11), 169.1 MB/s, 400.7 MB/s" the two rates; of several, the last: it is the result."""
    return [float(number) for number in re.findall(r"([\d.]+) MB/s", text)[-2:]]


def _speed(program, path):
    """wale's own codecs, without a pipeline around them, one core."""
    found = {}
    for line in run([str(program), str(path)], os.environ, user=None).splitlines():
        match = re.match(r"(zstd|zstd 2|zstd 3|lz4|crc32c)( encode| decode)?\s+(\d+) MB/s", line)
        if match and match.group(1) != "zstd 2":
            name = {"zstd": "zstd 1"}.get(match.group(1), match.group(1))
            found[f"wale's {name}{match.group(2) or ''}, one core"] = float(match.group(3))
    return found


def _write(folder):
    path, block = pathlib.Path(folder) / "write", os.urandom(1 << 20)
    begun = time.monotonic()
    with open(path, "wb", buffering=0) as output:
        for _ in range(1024):
            output.write(block)
        os.fsync(output.fileno())
    taken = time.monotonic() - begun
    path.unlink()
    return (1 << 30) / 1e6 / taken


def _fsync(folder):
    path, times = pathlib.Path(folder) / "fsync", []
    with open(path, "wb", buffering=0) as output:
        for _ in range(100):
            begun = time.monotonic()
            output.write(bytes(8192))
            os.fsync(output.fileno())
            times.append((time.monotonic() - begun) * 1000)
    path.unlink()
    return statistics.median(times)
