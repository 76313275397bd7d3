"""Whether a peer does what a scenario measures, looked at before it is measured. Every check returns what is wrong, or None."""

import json
import subprocess
import time
import urllib.request

import servers
from suite import drive, scenarios


def wrong(site, scenario, peer, running):
    """What this peer does not do as the scenario wants it."""
    if peer.name == "bare" and scenario.setup.kind in ("chain", "routes", "flood", "logged"):
        return plain(site, scenario, running)  # it takes part for scale only, and does nothing of it
    special = {"cache": cached, "chain": chained, "routes": routed, "flood": refused}.get(scenario.setup.kind)
    special = {"grpc": called, "websocket": echoed, "post-16k": posted, "logged-1k": logged}.get(scenario.name, special)
    return (special or plain)(site, scenario, running)


def plain(site, scenario, running):
    """Status, body, version, a kept connection; that it comes from the upstream each time; under https, TLS 1.3."""
    first, second = (curl(site, scenario, running) for _ in range(2))
    version = "2" if scenario.generator == "h2load" else "1.1"
    problem = answered(first, scenario, version) or answered(second, scenario, version)
    if problem:
        return problem
    if first.origin() == second.origin():
        return "does not ask the upstream"
    if first.connections != 1:
        return f"does not keep the connection: {first.connections} for two requests"
    return not_secure(site, scenario, running) if scenario.listener == "https" else None


def cached(site, scenario, running):
    first, second = (curl(site, scenario, running) for _ in range(2))
    problem = answered(second, scenario, "1.1")
    if not problem and first.origin() != second.origin():
        problem = "does not answer from the cache"
    return problem


def routed(site, scenario, running):
    lost = curl(site, scenario, running, path="/nowhere/items/42")
    if lost.status != 404:
        return f"answers {lost.status} where there is no route"
    return plain(site, scenario, running)


def refused(site, scenario, running):
    codes = [curl(site, scenario, running).status for _ in range(3)]
    return None if codes[-1] == 429 else f"does not refuse: {codes}"


def posted(site, scenario, running):
    """The upstream says how much has arrived."""
    body = site.lab.dir / "post-body"
    done = curl(site, scenario, running, "--data-binary", f"@{body}", path="/heard")
    arrived = json.loads(done.body).get("body_bytes") if done.status == 200 else None
    if arrived != scenarios.POST_BYTES:
        return f"delivers {arrived} bytes of {scenarios.POST_BYTES} (status {done.status})"
    return answered(curl(site, scenario, running, "--data-binary", f"@{body}"), scenario, "1.1")


def logged(site, scenario, running):
    problem = plain(site, scenario, running)
    deadline = time.monotonic() + 5
    while not problem and time.monotonic() < deadline:
        if any(line.startswith("{") and "/1k" in line for line in running.log.read_text(errors="replace").splitlines()):
            return None
        time.sleep(0.05)
    return problem or "writes no log"


def chained(site, scenario, running):
    problem = site.chains[scenario.algorithm].wrong(running.http, running.log)
    if problem:
        return problem
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(running.metrics, timeout=10) as response:
        text = response.read().decode(errors="replace")
    return None if any(line and line[0] != "#" for line in text.splitlines()) else "has no metrics"


def called(site, scenario, running):
    """A message there and back, and the status behind it."""
    done = curl(site, scenario, running, "-X", "POST", "-H", "content-type: application/grpc", "-H", "te: trailers",
                "--data-binary", f"@{site.lab.dir / 'call'}")
    if problem := answered(done, scenario, "2"):
        return problem
    if done.body.encode() != scenarios.CALL:
        return "does not bring the message back"
    return None if "grpc-status: 0" in done.head.lower() else "loses the status of the call"


def echoed(site, scenario, running):
    report = drive.websocket(site, scenario, running, 0.3, connections=2)
    return f"echoes nothing: {report['reasons']}" if report["failed"] or not report["requests"] else None


def not_secure(site, scenario, running):
    """TLS 1.3, and the protocol that the scenario is about."""
    protocol = "h2" if scenario.generator == "h2load" else "http/1.1"
    done = subprocess.run(["openssl", "s_client", "-connect", running.https, "-servername", "localhost", "-alpn", protocol,
                           "-CAfile", str(site.cert), "-verify_return_error", "-no_ign_eof"],
                          input=b"", capture_output=True, timeout=20)
    text = done.stdout.decode(errors="replace")
    for wanted in ("New, TLSv1.3", f"ALPN protocol: {protocol}", "Verify return code: 0 (ok)"):
        if wanted not in text:
            return f"does not say {wanted!r} over TLS"
    return None


class Answer:
    """What curl has heard of the last of two equal requests."""

    def __init__(self, head, body, figures):
        self.head, self.body = head, body
        status, self.version, connections = figures.split()[-3:]
        self.status = int(status)
        self.connections = sum(int(line.split()[2]) for line in figures.splitlines() if len(line.split()) == 3)

    def origin(self):
        """The identifier that the upstream gives to every answer."""
        found = [line.partition(":")[2].strip() for line in self.head.splitlines() if line.lower().startswith("x-origin:")]
        return found[-1] if found else None


def curl(site, scenario, running, *arguments, path=None):
    """Asks twice over one connection, so that it is seen to be kept; but a call once, since curl 7.88 cannot."""
    head, body = site.lab.dir / "curl-head", site.lab.dir / "curl-body"
    address = getattr(running, scenario.listener)
    port = servers.endpoint(address)[1]
    url = f"{'https' if scenario.listener == 'https' else 'http'}://localhost:{port}{path or scenario.path}"
    version = {"wrk": "--http1.1", "h2load": "--http2-prior-knowledge", "websocket": "--http1.1"}[scenario.generator]
    if scenario.listener == "https" and scenario.generator == "h2load":
        version = "--http2"
    twice = ["-o", body, url] * (1 if scenario.name == "grpc" else 2)
    done = subprocess.run(
        ["curl", "-sS", version, "--ipv4", "--noproxy", "*", "--max-time", "20", "--cacert", site.cert, "--tlsv1.3", "-D", head,
         "-H", "Expect:", *arguments, "-w", "%{http_code} %{http_version} %{num_connects}\n", *twice],
        capture_output=True, text=True)
    if done.returncode:
        return Answer("", done.stderr, "0 0 0")
    return Answer(head.read_text(errors="replace"), body.read_text(errors="replace"), done.stdout)


def answered(answer, scenario, version):
    if answer.status == 0:
        return f"does not answer: {answer.body.strip()}"
    if answer.status != 200:
        return f"answers {answer.status}"
    if answer.version != version:
        return f"speaks HTTP/{answer.version}, not HTTP/{version}"
    if len(answer.body) != scenario.bytes:
        return f"answers with {len(answer.body)} bytes, not {scenario.bytes}"
    return None if answer.origin() or scenario.name == "grpc" else "answers by itself, not with what the upstream says"
