"""Latency and losses while a gateway reloads its configuration or upgrades its binary, against the same load in quiet."""

import os
import signal
import subprocess
import threading
import time

import servers
from peers import Running, nginx, haproxy
from suite import drive, scenarios

# Kept connections, and beside them a new one for every request.
KEPT_RATE, NEW_RATE, CONNECTIONS = 2000, 200, 32
COUNT = 5
AFTER = 1.0  # seconds of load before the first change and after the last
PLAIN = scenarios.BY_NAME["plain-1k"]


def measure(starters, peers, seconds):
    """A row for each kind of change that each peer knows."""
    rows, peers = [], {peer.name: peer for peer in peers}
    for name, kind, start in KINDS:
        if name in peers and not peers[name].missing():
            running, change = start(starters.site, peers[name], kind)
            quiet = load(starters.site, running, seconds)
            took = []
            during = load(starters.site, running, seconds, lambda: took.append(timed(change)))
            rows.append({"peer": name, "change": kind, "count": len(took), "took": max(took), "quiet": quiet, "during": during})
    return rows


def load(site, running, seconds, change=None):
    """Both loads at once, and the changes evenly between."""
    reports = {}
    threads = [threading.Thread(target=lambda new=new: reports.update({new: ask(site, running, seconds, new)})) for new in (False, True)]
    for thread in threads:
        thread.start()
    pause = (seconds - 2 * AFTER) / max(1, COUNT - 1)
    for number in range(COUNT if change else 0):
        time.sleep(pause if number else AFTER)
        change()
    for thread in threads:
        thread.join()
    if len(reports) < 2:
        servers.fail(f"{running.server.name}: a load generator has failed")
    return {"kept": reports[False], "new": reports[True]}


def ask(site, running, seconds, new):
    arguments = drive.paced_arguments(site, PLAIN, running, NEW_RATE if new else KEPT_RATE, CONNECTIONS)
    return drive.ours(site, seconds, *arguments, *(["--new"] if new else []))[-1]


def timed(change):
    began = time.monotonic()
    change()
    return round(time.monotonic() - began, 3)


def start_tollgate(site, peer, kind):
    """The configuration alternates between two, so that every reload has something to change."""
    name, address, admin = f"tollgate-{kind}", servers.free_address(), f"unix:{site.lab.dir}/{kind}.sock"
    document = servers.config(address, site.origin, response={"headers": {"set": {"x-version": "one"}}})
    document["admin"] = {"bind": admin}
    server = site.lab.tollgate(peer.program, document, address, name=name, core=0)
    file = site.lab.dir / f"{name}.yaml"
    site.lab.callback(servers.kill_all_with, file)

    def change():
        if kind == "reload":
            text = file.read_text()
            file.write_text(text.replace('"one"', '"two"') if '"one"' in text else text.replace('"two"', '"one"'))
        done = subprocess.run([peer.program, kind, "--admin", admin], capture_output=True, text=True)
        if done.returncode:
            servers.fail(f"{kind}: {done.stdout}{done.stderr}")
    return Running(server, address), change


def start_nginx(site, peer, kind):
    address = servers.free_address()
    text = nginx.UPSTREAMS + "server {{ listen {http} backlog=4096; location / {{ {go} }} }}"
    block = text.format(origin=site.origin, echo=site.echo, kept=256, cert=site.cert, key=site.key, http=address, go=nginx.PASS)
    server = site.lab.nginx("nginx-reload", block, address, core=0, master=True)
    return Running(server, address), lambda: os.kill(server.pid, signal.SIGHUP)


def start_haproxy(site, peer, kind):
    address = servers.free_address()
    text = haproxy.BASE.format(origin=site.origin) + f"frontend web\n  bind {address} backlog 4096\n  default_backend app\n"
    file = site.file("haproxy-reload.cfg", text)
    server = site.lab.start("haproxy-reload", address, [peer.program, "-W", "-f", file], core=0)
    return Running(server, address), lambda: os.kill(server.pid, signal.SIGUSR2)


KINDS = (("tollgate", "reload", start_tollgate), ("tollgate", "upgrade", start_tollgate), ("nginx", "reload", start_nginx),
         ("haproxy", "reload", start_haproxy))
