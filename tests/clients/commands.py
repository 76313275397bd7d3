"""curl, nghttp and h2load."""

import hashlib
import itertools
import os
import re
import subprocess

from house import KEY, Scenarios
from origin import TEXT

SCENARIOS = Scenarios()
VERSIONS = {"HTTP/1.1": "--http1.1", "h2c": "--http2-prior-knowledge", "h2": "--http2"}
# Over h2c curl 7.88 uses no connection twice and loses answers that come before its request has ended, whoever the server is.
WELL_SPOKEN = ("HTTP/1.1", "h2")


def curl(house, version, path, *arguments, body=None):
    """Runs curl on a path; gives the status, what was printed with -v, and the body."""
    base = f"https://localhost:{house.tls}" if version == "h2" else f"http://127.0.0.1:{house.web}"
    known = [] if version == "h2" else ["--noproxy", "*"]
    command = ["curl", "-sSv", VERSIONS[version], "--cacert", str(house.cert), "--max-time", "60", *known, *arguments, base + path]
    ran = subprocess.run(command, input=body, capture_output=True, timeout=90)
    told = ran.stderr.decode(errors="replace")
    assert ran.returncode == 0, f"curl exits with {ran.returncode}: {told}"
    statuses = re.findall(r"^< HTTP/[\d.]+ (\d{3})", told, re.MULTILINE)
    return int(statuses[-1]), told, ran.stdout


@SCENARIOS("curl", "GET, HEAD, POST and PUT over HTTP/1.1, h2c and TLS")
def methods(house):
    for version in VERSIONS:
        status, told, text = curl(house, version, "/bodies/text")
        assert (status, text) == (200, TEXT), version
        wanted = "< HTTP/1.1 200" if version == "HTTP/1.1" else "< HTTP/2 200"
        assert wanted in told, told
        status, told, text = curl(house, version, "/bodies/text", "--head")
        assert status == 200 and f"content-length: {len(TEXT)}" in told.lower(), told
        for method in ("POST", "PUT"):
            status, _, text = curl(house, version, "/bodies/echo", "-X", method, "--data-binary", "@-", body=b"hello")
            assert text == f"5 {hashlib.sha256(b'hello').hexdigest()}".encode(), text


@SCENARIOS("curl", "20 MiB up with a length and in chunks, 20 MiB down")
def large(house):
    noise = os.urandom(20 << 20)
    wanted = f"{len(noise)} {hashlib.sha256(noise).hexdigest()}".encode()
    for version in VERSIONS:
        _, _, text = curl(house, version, "/bodies/length", "--data-binary", "@-", body=noise)
        assert text == wanted, (version, text)
        _, _, text = curl(house, version, "/bodies/chunks", "-T", "-", body=noise)
        assert text == wanted, (version, text)
        _, _, text = curl(house, version, f"/bodies/bytes?count={20 << 20}")
        assert text == bytes(range(256)) * (20 << 12), version


@SCENARIOS("curl", "--compressed: each coding by itself, and all")
def compressed(house):
    for version, coding in itertools.product(VERSIONS, ["gzip", "br", "zstd", "gzip, br, zstd", "identity;q=1, gzip;q=0.5"]):
        arguments = ["--compressed", "-H", f"accept-encoding: {coding}"]
        status, told, text = curl(house, version, "/bodies/text", *arguments)
        assert (status, text) == (200, TEXT), (version, coding)
        wanted = {"gzip, br, zstd": "zstd", "identity;q=1, gzip;q=0.5": None}.get(coding, coding)
        found = re.search(r"< content-encoding: (\S+)", told, re.IGNORECASE)
        assert (found and found[1]) == wanted, (version, coding, told)
        assert not wanted or '< etag: w/"same"' in told.lower(), told


@SCENARIOS("curl", "one connection for several requests, errors among them")
def kept(house):
    for version in WELL_SPOKEN:
        base = f"https://localhost:{house.tls}" if version == "h2" else f"http://127.0.0.1:{house.web}"
        addresses = [base + path for path in ("/nothing/here", "/bodies/text", "/guarded/x", "/bodies/text")]
        sinks = [argument for address in addresses for argument in ("-o", os.devnull, address)]
        command = ["curl", "-sS", VERSIONS[version], "--cacert", str(house.cert), "-w", "%{http_code} %{num_connects}\n", *sinks]
        told = subprocess.run(command, capture_output=True, timeout=60, text=True)
        assert told.stdout.split() == ["404", "1", "200", "0", "401", "0", "200", "0"], (version, told)


def expecting(house, version, key, size, sent, expects):
    """One upload to a route for those with a key and up to 1 KiB: what the client is told, and what reaches the origin."""
    path = f"/guarded/{version}-{key}-{size}-{sent}-{expects}".replace(" ", "-").lower()
    arguments = ["-H", "expect: 100-continue" if expects else "expect:"]
    arguments += ["-H", f"x-api-key: {KEY}"] if key == "key" else []
    arguments += ["-T", "-"] if sent == "chunks" else ["-X", "PUT", "--data-binary", "@-"]
    # Over HTTP/2 the gateway has no interim answers, and a client goes on when it has waited for long enough.
    patience = "5" if version == "HTTP/1.1" else "0.2"
    status, told, text = curl(house, version, path, "--expect100-timeout", patience, *arguments, body=b"x" * size)
    interim = re.search(r"^< HTTP/[\d.]+ 100", told, re.MULTILINE) is not None
    arrived = house.origin.of(path)
    if key == "none":
        assert (status, interim, arrived) == (401, False, []), (path, status, interim, arrived)
    elif size > 1024:
        # Without a length the size is found out only when the body comes, so the client may have been asked for it.
        assert status == 413 and not (interim and sent == "length"), (path, status, interim)
        assert sent == "chunks" or not arrived, (path, arrived)
    else:
        assert status == 200 and text.startswith(f"{size} ".encode()), (path, status, text)
        assert [asked["body"] for asked in arrived] == [size], (path, arrived)
        assert interim or not expects or version != "HTTP/1.1", (path, told)


@SCENARIOS("curl", "Expect: 100-continue with and without key, too large, in chunks")
def expectations(house):
    table = [WELL_SPOKEN, ("key", "none"), (0, 5, 1024, 1025, 50_000), ("length", "chunks"), (True, False)]
    combinations = [one for one in itertools.product(*table) if one[2] or one[3] == "length"]
    for one in combinations:
        expecting(house, *one)
    return f"{len(combinations)} combinations"


@SCENARIOS("curl", "Expect: 100-continue where a limit refuses: 429 without a 100")
def limited(house):
    statuses = []
    for turn in range(3):
        arguments = ["-H", "expect: 100-continue", "-H", f"x-api-key: {KEY}", "-X", "PUT", "--data-binary", "hello"]
        status, told, _ = curl(house, "HTTP/1.1", "/once/x", *arguments)
        statuses.append((status, "< HTTP/1.1 100" in told))
    assert statuses == [(200, True), (429, False), (429, False)], statuses


@SCENARIOS("nghttp", "a page and its answers over h2c and TLS")
def nghttp(house):
    for address in (f"http://127.0.0.1:{house.web}", f"https://localhost:{house.tls}"):
        command = ["nghttp", "-nv", "--no-verify-peer", *(f"{address}/bodies/text?{number}" for number in range(5))]
        told = subprocess.run(command, capture_output=True, timeout=60, text=True).stdout
        told = re.sub(r"\x1b\[[\d;]*m", "", told)
        assert len(re.findall(r"recv \(stream_id=\d+\) :status: 200", told)) == 5, told
        assert "RST_STREAM" not in told, told


@SCENARIOS("nghttp", "an upload with padding and trailers, and a dependency tree")
def nghttp_upload(house):
    upload = house.folder / "upload"
    upload.write_bytes(b"x" * 300_000)
    command = ["nghttp", "-v", "--no-verify-peer", "-b", "100", "--trailer", "x-sum: 1", "-d", str(upload), f"http://127.0.0.1:{house.web}/bodies/upload"]
    told = subprocess.run(command, capture_output=True, timeout=60, text=True).stdout
    assert f"300000 {hashlib.sha256(upload.read_bytes()).hexdigest()}" in told, told


@SCENARIOS("h2load", "2,000 requests on 8 connections, 20 at once on each, over h2c and TLS")
def h2load(house):
    for address in (f"http://127.0.0.1:{house.web}", f"https://localhost:{house.tls}"):
        command = ["h2load", "-n", "2000", "-c", "8", "-m", "20", f"{address}/page/x"]
        told = subprocess.run(command, capture_output=True, timeout=120, text=True).stdout
        assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in told and "2000 2xx" in told, told


@SCENARIOS("h2load", "2,000 requests over HTTP/1.1, four in a pipeline")
def pipelined(house):
    command = ["h2load", "--h1", "-n", "2000", "-c", "8", "-m", "4", f"http://127.0.0.1:{house.web}/page/x"]
    told = subprocess.run(command, capture_output=True, timeout=120, text=True).stdout
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in told and "2000 2xx" in told, told
