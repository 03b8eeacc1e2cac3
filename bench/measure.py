"""What a piece of work costs: wall time, processor time of its whole process tree and of the machine, peak memory, bytes.

Each measured tree lives in a control group of its own (version 2; no controller is needed). `cpu.stat` counts the time of
every process that was ever in it, also of those that are gone. Memory is the sum of the proportional set sizes of all that
live, sampled: `memory.peak` would count the page cache and whatever lies in a tmpfs, which is the data, not the program.
"""

import os
import pathlib
import pwd
import signal
import statistics
import subprocess
import threading
import time

SAMPLE_SECONDS = 0.025
NOT_WANTED = "-"
GROUP_ROOTS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")


class Failed(Exception):
    """A command that did not end with 0, with the end of its output."""


def groups_root():
    for root in map(pathlib.Path, GROUP_ROOTS):
        if (root / "cgroup.procs").exists() and (root / "cpu.stat").exists():
            return root
    raise SystemExit("bench: no control groups of version 2 here; on a usual Debian they are at /sys/fs/cgroup")


def machine_busy():
    """Seconds that all processors together were busy since the start."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _idle, _wait, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def proportional_bytes(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
            for line in rollup:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass  # It is gone.
    return 0


class Group:
    """A control group, the processes in it, and the greatest sum of their memory."""

    def __init__(self, name):
        self.path = groups_root() / f"wale-bench-{name}-{os.getpid()}"
        self.path.mkdir(exist_ok=True)
        self.peak = 0
        self.ignored = set()
        self._ends = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def processes(self):
        try:
            return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def memory(self):
        return sum(proportional_bytes(pid) for pid in self.processes() if pid not in self.ignored)

    def _sample(self):
        while not self._ends.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, self.memory())

    def busy(self):
        for line in (self.path / "cpu.stat").read_text().splitlines():
            name, value = line.split()
            if name == "usage_usec":
                return int(value) / 1e6
        raise SystemExit(f"bench: {self.path}/cpu.stat has no usage_usec")

    def join(self):
        """Puts the calling process in."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def close(self):
        self._ends.set()
        self._sampler.join()
        until(self._gone, 10, "the measured processes to end")

    def _gone(self):
        # A server that is killed may begin a process in that moment.
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            self.path.rmdir()
        except OSError:
            return False
        return True


def until(condition, seconds, what):
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while True:
        if condition():
            return
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s for {what}")
        time.sleep(0.01)


def become(user):
    """Gives up root for a user, in a child before it runs its program."""
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.chdir("/")


def start(command, environment, group, log):
    """Starts a program as user postgres in a group."""

    def prepare():
        group.join()
        become("postgres")

    with open(log, "ab") as output:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=prepare
        )


def run(command, environment=None, log=None, user="postgres", check=True):
    """Runs a program that is not measured; gives what it printed."""
    ended = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=(lambda: become(user)) if user else None, check=False,
    )
    text = ended.stdout.decode(errors="replace")
    if log:
        with open(log, "a", encoding="utf-8") as output:
            output.write(text)
    if check and ended.returncode:
        raise Failed(f"{' '.join(command)} ended with {ended.returncode}:\n{text[-2000:]}")
    return text


def whole(command, environment, name, log):
    """One command from its start to its end."""
    os.sync()
    group = Group(name)
    try:
        begun, busy = time.monotonic(), machine_busy()
        status = start(command, environment, group, log).wait()
        wall, machine = time.monotonic() - begun, machine_busy() - busy
        if status:
            end = pathlib.Path(log).read_text(errors="replace")[-2000:]
            raise Failed(f"{' '.join(command)} ended with {status}:\n{end}")
        return {"wall": wall, "cpu": group.busy(), "machine": machine, "peak": group.peak}
    finally:
        group.close()


def one_by_one(commands, is_wanted, after, environment, group, log):
    """Runs shell commands one after the other as PostgreSQL does (`sh -c`), those that are still wanted when their turn comes,
    `after` behind each; what each one took.

    They are started by a child within the group, so that all that they start is counted; the child itself is left out of
    the memory. `group` may hold a sidecar already.
    """
    os.sync()
    reader, writer = os.pipe()
    busy, machine, begun = group.busy(), machine_busy(), time.monotonic()
    child = os.fork()
    if child == 0:
        _child(commands, is_wanted, after, environment, group, writer, log)
    os.close(writer)
    group.ignored.add(child)
    with os.fdopen(reader) as lines:
        texts = lines.read().split()
    wall = time.monotonic() - begun
    _, status = os.waitpid(child, 0)
    if status or len(texts) != len(commands):
        end = pathlib.Path(log).read_text(errors="replace")[-1000:]
        raise Failed(f"command {len(texts) + 1} of {len(commands)} failed: {commands[min(len(texts), len(commands) - 1)]}\n{end}")
    times = [float(text) for text in texts if text != NOT_WANTED]
    return {
        "wall": wall, "cpu": group.busy() - busy, "machine": machine_busy() - machine, "peak": group.peak,
        "count": len(commands), "commands": len(times), "p50": statistics.median(times), "rate": len(commands) / wall,
    }


def _child(commands, is_wanted, after, environment, group, writer, log):
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        group.join()
        become("postgres")
        for number, command in enumerate(commands):
            if not is_wanted(number):
                os.write(writer, f"{NOT_WANTED}\n".encode())
                continue
            begun = time.monotonic()
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], environment)
            _, ended = os.waitpid(pid, 0)
            if ended:
                os._exit(1)
            taken = time.monotonic() - begun
            after(number)
            os.write(writer, f"{taken}\n".encode())
        status = 0
    finally:
        os._exit(status)


def stored_bytes(*folders):
    """Bytes of all files below."""
    total = 0
    for folder in folders:
        for path, _, names in os.walk(folder):
            total += sum(os.lstat(os.path.join(path, name)).st_size for name in names)
    return total
