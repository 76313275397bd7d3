"""Starting what takes part, looking at it, and measuring it in turns."""

import dataclasses
import sys

import servers
from peers import Running, Site
from suite import checks, drive, scenarios

REFERENCES = ("bare", "tollgate")
WARM_UP = 1  # seconds for each in a round that is thrown away
ORIGIN = """
server {{ listen {address} backlog=4096; default_type text/plain;
  add_header x-origin $request_id; add_header cache-control "public, max-age=3600";
  location / {{ return 200 "{body}"; }}
  location = /64k {{ root {root}; }}
  location = /post {{ return 200 "ok"; }}
  location = /heard {{ proxy_pass http://{demo}; }}
  {seen}
}}"""


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A peer that takes part in a scenario."""

    scenario: scenarios.Scenario
    peer: object
    running: Running


class Starters:
    """Starts each peer once for each of its setups, and remembers what came of it."""

    def __init__(self, site):
        self.site, self.started, self.left_out, self.again = site, {}, {}, []

    def entrants(self, wanted, peers):
        """Those that do what the scenario asks; why the others do not is in `left_out`."""
        found = []
        for scenario in wanted:
            for peer in filter(scenario.takes, peers):
                running = self.started_peer(peer, scenario.setup)
                reason = running if isinstance(running, str) else checks.wrong(self.site, scenario, peer, running)
                if reason:
                    self.leave_out(scenario, peer, reason)
                else:
                    found.append(Entrant(scenario, peer, running))
        return found

    def started_peer(self, peer, setup):
        """It, or why it does not run."""
        key = (peer.name, peer.key(setup))
        if key not in self.started:
            self.started[key] = peer.missing() or self.try_start(peer, setup)
        return self.started[key]

    def try_start(self, peer, setup):
        try:
            return peer.start(self.site, setup)
        except servers.Fault as fault:
            return str(fault.code)

    def leave_out(self, scenario, peer, reason):
        """A reference that is wrong makes the whole run worthless; without another peer it goes on."""
        if peer.name in REFERENCES:
            servers.fail(f"{peer.name} in {scenario.name}: {reason}")
        reason = " ".join(reason.split())
        print(f"left out: {peer.name} in {scenario.name}: {reason[-300:]}", file=sys.stderr, flush=True)
        self.left_out.setdefault(peer.name, {})[scenario.name] = reason


def site(lab, options, wanted):
    """The upstreams, the certificate, the tokens, and the files that the generators send."""
    import chain
    origin, demo, echo = (servers.free_address() for _ in range(3))
    (lab.dir / "64k").write_bytes(b"x" * 65536)
    (lab.dir / "post-body").write_bytes(b"x" * scenarios.POST_BYTES)
    (lab.dir / "call").write_bytes(scenarios.CALL)
    (lab.dir / "post-16k.lua").write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {scenarios.POST_BYTES})\n')
    lab.start("demo-upstream", demo, [options.demo, "--listen", demo], core=1)
    lab.start("echo-upstream", echo, [options.echo, echo], core=1)
    lab.nginx("origin", ORIGIN.format(address=origin, body="x" * 1024, root=lab.dir, demo=demo, seen=chain.SEEN), origin, core=1)
    cert, key = servers.certificate(lab.dir)
    chains = {algorithm: chain.Chain(lab, algorithm)
              for algorithm in dict.fromkeys(scenario.algorithm for scenario in wanted) if algorithm}
    for algorithm, tokens in chains.items():
        (lab.dir / f"{algorithm}.lua").write_text(tokens.script())
        (lab.dir / f"{algorithm}.headers").write_text("".join(f"Authorization: Bearer {token}\n" for token in tokens.tokens))
    return Site(lab, origin, echo, cert, key, chains)


def closed_loop(starters, entrants, rounds, seconds, warm_up=True):
    """One sample for every round, scenario and peer."""
    samples, entrants = [], list(entrants)
    for number in range(0 if warm_up else 1, rounds + 1):
        for entrant in in_turn(entrants, number):
            measured = attempt(starters, entrants, entrant, seconds if number else WARM_UP, warming=not number)
            if measured and number:
                samples.append({"round": number, "scenario": entrant.scenario.name, "peer": entrant.peer.name, **measured})
        print(f"closed loop: round {number} of {rounds}" if number else "closed loop: warmed up", file=sys.stderr, flush=True)
    return samples


def attempt(starters, entrants, entrant, seconds, warming):
    """A sample. One that fails is taken again once, and the report says so; after that the entrant leaves the scenario."""
    for last in (False, True):
        try:
            return drive.sample(starters.site, entrant.scenario, entrant.running, seconds)
        except drive.Failed as failed:
            if warming and isinstance(failed, drive.Nothing):
                return None
            if last:
                starters.leave_out(entrant.scenario, entrant.peer, str(failed))
                entrants.remove(entrant)
            else:
                starters.again.append(f"{entrant.peer.name} in {entrant.scenario.name}: {' '.join(str(failed).split())}")
    return None


def in_turn(entrants, number):
    """Scenario by scenario; the order of the peers turns so that none always follows the same one."""
    for scenario in dict.fromkeys(entrant.scenario for entrant in entrants):
        turn = [entrant for entrant in entrants if entrant.scenario is scenario]
        yield from turn[number % len(turn):] + turn[:number % len(turn)]


def paced(starters, entrants, rates, rounds, seconds):
    """Reports of the generator at fixed rates."""
    reports = []
    for number in range(1, rounds + 1):
        for rate in rates:
            for entrant in in_turn(entrants, number):
                report = drive.paced(starters.site, entrant.scenario, entrant.running, seconds, rate)
                reports.append({"round": number, "scenario": entrant.scenario.name, "peer": entrant.peer.name, "rate": rate, **report})
        print(f"fixed rates: round {number} of {rounds}", file=sys.stderr, flush=True)
    return reports
