"""Where archives lie: a folder in memory or on disk, and S3 on loopback with its objects in memory."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess

from measure import Failed, until

ACCESS_KEY, SECRET_KEY, BUCKET, REGION = "wale", "wale-bench-secret", "bench", "us-east-1"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def empty(folder, owner="postgres"):
    """A new folder of that user's."""
    folder = pathlib.Path(folder)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    shutil.chown(folder, owner, owner)
    return folder


class S3:
    """s3s-fs, which keeps objects as files and is the quickest S3 server that the registries have; and stunnel before it
    for pgBackRest, which speaks to S3 through TLS only."""

    def __init__(self, program, folder, logs):
        self.folder = empty(folder, "root")
        (self.folder / BUCKET).mkdir()
        self.port, self.tls_port = free_port(), free_port()
        self.log = logs / "s3s-fs.log"
        self.log.write_text("")
        self._processes = []
        self._tls(logs)
        # Each request is one line of its log, for all peers alike, and so they are counted.
        self._start([
            str(program), "--host", "127.0.0.1", "--port", str(self.port), "--access-key", ACCESS_KEY,
            "--secret-key", SECRET_KEY, str(self.folder),
        ], self.log, {"RUST_LOG": "s3s::service=debug", "NO_COLOR": "1", "PATH": os.environ["PATH"]})
        try:
            for port in (self.port, self.tls_port):
                until(lambda port=port: answers(port), 10, f"the S3 server at port {port}")
        except Failed:
            self.close()
            raise

    def _start(self, command, log, environment):
        with open(log, "ab") as output:
            self._processes.append(subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output))

    def _tls(self, logs):
        folder = logs / "tls"
        folder.mkdir(exist_ok=True)
        key = folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
             "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(folder / "cert.pem")],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        configuration = folder / "stunnel.conf"
        configuration.write_text(
            f"foreground = yes\npid =\ndebug = err\n[s3]\naccept = 127.0.0.1:{self.tls_port}\n"
            f"connect = 127.0.0.1:{self.port}\ncert = {folder}/cert.pem\nkey = {key}\n")
        self._start(["stunnel4", str(configuration)], logs / "stunnel.log", {"PATH": "/usr/bin:/usr/sbin:/bin"})

    def requests(self):
        """How many requests came so far."""
        with open(self.log, "rb") as lines:
            return sum(b"s3s::service" in line and b"req: Request" in line for line in lines)

    def close(self):
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.folder)


def answers(port):
    """Whether something listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


class Place:
    """One store, as a peer sees it: `folder` holds its bytes, `s3` is None for a plain folder."""

    def __init__(self, name, root, s3=None):
        self.name, self.s3, self.root = name, s3, pathlib.Path(root)

    def archive(self, peer):
        """Where the bytes of that peer's archive lie."""
        return self.s3.folder / BUCKET / peer if self.s3 else self.root / peer

    def begin(self, peer):
        """Empties the archive of a peer."""
        if not self.s3:
            return empty(self.archive(peer))
        if self.archive(peer).exists():
            shutil.rmtree(self.archive(peer))
        return self.archive(peer)

    def requests(self):
        return self.s3.requests() if self.s3 else None


def tool(name, *candidates):
    """The first that exists, or a word what to do."""
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise Failed(f"{name} is not installed: run scripts/setup.sh bench")
