"""The load generators: wrk, h2load and our own, each run on core 1 and read."""

import json
import pathlib
import re
import subprocess
import time

import servers
from suite import scenarios

CORE = ["taskset", "-c", "1"]
NEW_AT_LEAST = 0.95


class Failed(Exception):
    """A measurement that says nothing: something else was answered than asked for."""


class Nothing(Failed):
    """Nothing at all was answered in the time; a warm-up may be too short for that."""


def sample(site, scenario, running, seconds):
    """One measurement in a closed loop: CPU time of the peer over requests done."""
    cpu, opened, start = running.server.cpu_seconds(), connections_opened(), time.monotonic()
    done = {"wrk": wrk, "h2load": h2load, "websocket": websocket}[scenario.generator](site, scenario, running, seconds)
    wall, cpu = time.monotonic() - start, running.server.cpu_seconds() - cpu
    opened, requests = connections_opened() - opened, done["requests"]
    if done["failed"] or not requests:
        raise (Failed if done["failed"] else Nothing)(f"{scenario.name} through {running.server.name}: {done['failed']} of {requests} failed; {done['reasons']}")
    require_connections(scenario, running, opened / requests)
    return {"us": cpu * 1e6 / requests, "per_second": requests / wall, "busy": cpu / wall, "requests": requests,
            "opened": round(opened / requests, 4)}


def require_connections(scenario, running, each):
    """A new connection for each request where the scenario is about that. The kernel counts those of all programs, so that
    too many prove nothing: that connections are kept, a check has looked at before."""
    if scenario.new and each < NEW_AT_LEAST:
        raise Failed(f"{scenario.name} through {running.server.name}: only {each:.2f} connections opened for each request")


def connections_opened():
    """TCP connections accepted on this machine so far."""
    rows = [line.split() for line in pathlib.Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")]
    return int(dict(zip(*rows))["PassiveOpens"])


def url(scenario, running, scheme=""):
    secure = scenario.listener == "https"
    return f"{scheme or 'http'}{'s' if secure else ''}://{getattr(running, scenario.listener)}{scenario.path}"


def wrk(site, scenario, running, seconds):
    command = [*CORE, "wrk", "-t1", f"-c{scenarios.CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    script = site.lab.dir / f"{scenario.algorithm or scenario.name}.lua"
    if script.exists():
        command += ["-s", script]
    if scenario.new:
        command += ["-H", "Connection: close"]
    text = output([*command, url(scenario, running)], seconds)
    requests, refused = counted(r"(\d+) requests in", text), counted(r"Non-2xx or 3xx responses: (\d+)", text)
    # wrk counts the end of a connection that it was promised as no error, but time-outs, resets and refusals.
    broken = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    if scenario.setup.kind == "flood" and running.server.name.startswith("tollgate"):
        refused = max(0, requests - refused - 2)  # the guard lets one request pass in a minute
    return {"requests": requests, "failed": refused + broken, "reasons": text}


def h2load(site, scenario, running, seconds):
    command = [*CORE, "h2load", f"-c{scenarios.H2_CONNECTIONS}", f"-m{scenarios.H2_STREAMS}", "-t1", "-D", str(seconds)]
    if scenario.name == "grpc":
        command += ["-d", site.lab.dir / "call", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    text = output([*command, url(scenario, running)], seconds)
    requests, done = counted(r"requests: (\d+) total", text), counted(r"(\d+) succeeded", text)
    protocol = "h2c" if scenario.name == "grpc" else "h2"
    wrong = [] if f"Application protocol: {protocol}" in text else [f"{protocol} is not what is spoken"]
    if counted(r"status codes: (\d+) 2xx", text) < done:
        wrong.append("not all are 2xx")
    # What is under way when the time is over counts as neither.
    failed = sum(counted(rf"(\d+) {kind}", text) for kind in ("failed", "errored", "timeout")) + len(wrong)
    return {"requests": done, "failed": failed, "reasons": f"{wrong}\n{text}", "total": requests}


def websocket(site, scenario, running, seconds, connections=scenarios.CONNECTIONS):
    return ours(site, seconds, "websocket", url(scenario, running, "ws"), "--connections", connections,
                "--bytes", scenario.bytes)[-1]


def paced(site, scenario, running, seconds, rate, connections=scenarios.CONNECTIONS):
    """Requests at a fixed rate, measured from when they were due."""
    return ours(site, seconds, *paced_arguments(site, scenario, running, rate, connections))[-1]


def paced_arguments(site, scenario, running, rate, connections):
    address = f"localhost:{servers.endpoint(getattr(running, scenario.listener))[1]}"
    secure = scenario.listener == "https"
    tokens = ["--headers", site.lab.dir / f"{scenario.algorithm}.headers"] if scenario.algorithm else []
    return ["http", f"{'https' if secure else 'http'}://{address}{scenario.path}", "--rate", rate, "--connections", connections,
            "--bytes", scenario.bytes, *(["--ca", site.cert] if secure else []), *tokens]


def ours(site, seconds, *arguments):
    """What the generator reports: one or more lines of JSON."""
    text = output([*CORE, site.lab.generator, *arguments, "--seconds", seconds], seconds)
    return [json.loads(line) for line in text.splitlines()]


def output(command, seconds):
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds * 2 + 30)
    except subprocess.TimeoutExpired as expired:
        raise Failed(f"{' '.join(command)}: has not ended") from expired
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def counted(pattern, text):
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
