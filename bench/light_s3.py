#!/usr/bin/env python3
"""light_s3.py - an S3 server that costs little: it checks no signature and takes no sum of what is long. s3s-fs needs 8 seconds of
processor time for a gigabyte, and so is the limit itself where a line of 1 Gbit/s is to be filled.

    light_s3.py PORT FOLDER

It knows what wale asks of a bucket: whole objects and ranges, uploads in parts, If-None-Match, listings. The sum that comes with a short
body is compared, and so wale relies on it. Objects are files of the folder, their parts joined by names and never copied.
"""

import asyncio
import base64
import hashlib
import pathlib
import re
import sys
import urllib.parse
import uuid
from datetime import datetime, timezone
from email.utils import formatdate

SHORT, PIECE = 256 << 10, 1 << 20
TABLE = []
for number in range(256):
    for _ in range(8):
        number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
    TABLE.append(number)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "big")


class Stored:
    """An object: the files that it is made of."""

    def __init__(self, files, mark, tag):
        self.files, self.mark, self.tag = files, mark, tag
        self.sizes = [file.stat().st_size for file in files]
        self.modified = files[0].stat().st_mtime

    @property
    def size(self):
        return sum(self.sizes)


class Server:
    def __init__(self, folder):
        self.folder, self.objects, self.uploads = pathlib.Path(folder), {}, {}
        self.bodies = 0

    async def connected(self, reader, writer):
        try:
            while await self.request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def request(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return False
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        path, _, query = target.partition("?")
        words = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        key = urllib.parse.unquote(path).lstrip("/").partition("/")[2]
        body, short = await self.body(reader, int(headers.get("content-length", 0)))
        if method == "PUT" and short is not None and not self.is_right(short, headers):
            answer = self.refuse(400, "BadDigest")
        else:
            answer = self.answer(method, key, words, headers, body, short)
        await self.send(writer, method, *answer)
        return True

    async def body(self, reader, length):
        """The body in a file, and what it is where it is short."""
        if not length:
            return None, b""
        self.bodies += 1
        path, short = self.folder / f"{self.bodies}", b""
        with open(path, "wb") as file:
            left = length
            while left:
                data = await reader.read(min(left, PIECE))
                if not data:
                    path.unlink()
                    raise OSError("the body broke")
                file.write(data)
                short += data if length <= SHORT else b""
                left -= len(data)
        return path, short if length <= SHORT else None

    @staticmethod
    def is_right(short, headers):
        sums = {"x-amz-checksum-crc32c": crc32c, "x-amz-checksum-sha256": lambda it: hashlib.sha256(it).digest(),
                "content-md5": lambda it: hashlib.md5(it).digest()}
        return all(base64.b64encode(take(short)).decode() == headers[name] for name, take in sums.items() if name in headers)

    @staticmethod
    def refuse(status, code):
        return status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), None

    def answer(self, method, key, words, headers, body, short):
        found = self.objects.get(key)
        if not key:
            return 200, {}, self.listing(words), None
        if method in ("GET", "HEAD"):
            if not found:
                return self.refuse(404, "NoSuchKey")
            return self.read(found, headers)
        if method == "POST" and "uploads" in words:
            name = uuid.uuid4().hex
            self.uploads[name] = ({}, headers.get("x-amz-meta-wale-mark", ""), headers)
            text = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            return 200, {}, text.encode(), None
        if "uploadId" in words and words["uploadId"] not in self.uploads:
            return self.refuse(404, "NoSuchUpload")
        if method == "PUT" and "uploadId" in words:
            self.uploads[words["uploadId"]][0][int(words["partNumber"])] = body
            return 200, {"ETag": f'"{uuid.uuid4().hex}"'}, b"", None
        if method == "DELETE":
            self.uploads.pop(words.get("uploadId"), None)
            if "uploadId" not in words:
                self.objects.pop(key, None)
            return 204, {}, b"", None
        if found and headers.get("if-none-match") == "*":
            return self.refuse(412, "PreconditionFailed")
        if method == "POST":
            parts, _, begun = self.uploads.pop(words["uploadId"])
            files = [parts[number] for number in sorted(parts)]
            self.keep(key, files, begun, f"{uuid.uuid4().hex}-{len(files)}")
            text = f'<CompleteMultipartUploadResult><ETag>"{self.objects[key].tag}"</ETag></CompleteMultipartUploadResult>'
            return 200, {}, text.encode(), None
        if not body:
            self.bodies += 1
            body = self.folder / f"{self.bodies}"
            body.touch()
        self.keep(key, [body], headers, hashlib.md5(short).hexdigest() if short is not None else uuid.uuid4().hex)
        return 200, {"ETag": f'"{self.objects[key].tag}"'}, b"", None

    def keep(self, key, files, headers, tag):
        marks = {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
        self.objects[key] = Stored(files, marks, tag)

    @staticmethod
    def read(found, headers):
        told = {"ETag": f'"{found.tag}"', "Last-Modified": formatdate(found.modified, usegmt=True), **found.mark}
        begin, end, status = 0, found.size, 200
        asked = re.match(r"bytes=(\d+)-(\d*)$", headers.get("range", ""))
        if asked and found.size:
            begin, end, status = int(asked[1]), min(int(asked[2] or found.size - 1), found.size - 1) + 1, 206
            told["Content-Range"] = f"bytes {begin}-{end - 1}/{found.size}"
        return status, told, None, (found, begin, end)

    def listing(self, words):
        prefix, after, most = words.get("prefix", ""), words.get("start-after", ""), int(words.get("max-keys", 1000))
        after = max(after, words.get("continuation-token", ""))
        divide, shown, common = words.get("delimiter"), [], []
        names = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        for key in names:
            rest = key[len(prefix):]
            if divide and divide in rest:
                folder = prefix + rest.split(divide)[0] + divide
                common += [] if folder in common else [folder]
            else:
                shown.append(key)
        more = len(shown) > most
        text = "".join(self.entry(key) for key in shown[:most])
        text += "".join(f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in common)
        token = f"<NextContinuationToken>{shown[most - 1]}</NextContinuationToken>" if more else ""
        return (f"<ListBucketResult><IsTruncated>{'true' if more else 'false'}</IsTruncated>{token}{text}"
                "</ListBucketResult>").encode()

    def entry(self, key):
        found = self.objects[key]
        moment = datetime.fromtimestamp(found.modified, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return (f'<Contents><Key>{key}</Key><LastModified>{moment}</LastModified><ETag>"{found.tag}"</ETag>'
                f"<Size>{found.size}</Size></Contents>")

    @staticmethod
    async def send(writer, method, status, headers, text, content):
        length = content[2] - content[1] if content else len(text)
        lines = [f"HTTP/1.1 {status} -", f"Content-Length: {length}", f"Date: {formatdate(usegmt=True)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if method != "HEAD" and text:
            writer.write(text)
        await writer.drain()
        if method == "HEAD" or not content:
            return
        found, begin, end = content
        at = 0
        for file, size in zip(found.files, found.sizes):
            first, last = max(begin, at) - at, min(end, at + size) - at
            if first < last:
                with open(file, "rb") as opened:
                    await asyncio.get_running_loop().sendfile(writer.transport, opened, first, last - first)
            at += size


async def serve(port, folder):
    server = await asyncio.start_server(Server(folder).connected, "127.0.0.1", port, limit=4 << 20)
    await server.serve_forever()


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))


if __name__ == "__main__":
    main()
