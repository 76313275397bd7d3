"""What the load tests share: starting and stopping servers on loopback, and reading what they used.

Every server is a child of the test, writes into the test's own temporary directory and is gone when the test ends.
"""

import contextlib
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARIES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
TICKS = os.sysconf("SC_CLK_TCK")
START_LIMIT = 60.0  # seconds; a server under valgrind is slow to start, and to stop


class Fault(SystemExit):
    """What ends a test, unless the test can go on without the server that is at fault."""


def fail(message):
    """Ends the test with a message on stderr."""
    raise Fault(f"{pathlib.Path(sys.argv[0]).name}: {message}")


def add_arguments(parser):
    """The arguments that every load test takes."""
    parser.add_argument("--tollgate", default=BINARIES / "tollgate", help="default target/release/tollgate")
    parser.add_argument("--bare", default=BINARIES / "examples" / "bare-pingora",
                        help="default target/release/examples/bare-pingora")


def add_generators(parser):
    """Our own generator, and the upstreams beside nginx."""
    for name, file in (("generator", "load-generator"), ("demo", "demo-upstream"), ("echo", "echo-upstream")):
        parser.add_argument(f"--{name}", default=BINARIES / "examples" / file, help=f"default target/release/examples/{file}")


def require(*programs):
    """Fails early, with the way to get it, when a program is missing."""
    packages = {"nginx": "nginx-light", "taskset": "util-linux", "h2load": "nghttp2-client"}
    for program in map(str, programs):
        if shutil.which(program) is None:
            hint = "cargo build --release --bins --examples" if "/" in program else \
                f"apt-get install {packages.get(program, program)}"
            fail(f"{program} is missing: {hint}")


def raise_file_limit():
    """Raises the limit of open files to the hard one, for this process and its children; returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_address():
    """A loopback address that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % probe.getsockname()[1]


def endpoint(address):
    """host:port as the pair that sockets take."""
    host, port = address.rsplit(":", 1)
    return host, int(port)


class Server:
    """One running process that listens on `address`."""

    def __init__(self, name, address, process):
        self.name, self.address, self.process = name, address, process
        self.pid = process.pid

    def cpu_seconds(self):
        """User and system time so far, of all threads, and of the processes that it has started and still has."""
        return sum(cpu_seconds(pid) for pid in [self.pid, *children(self.pid)])

    def rss_kib(self):
        """Resident memory now, in KiB."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0


def cpu_seconds(pid):
    """User and system time of one process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def children(pid):
    """The processes that a process has started, and still has."""
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Lab(contextlib.ExitStack):
    """A temporary directory and the servers started in it; all are gone when the block is left."""

    def __enter__(self):
        import tempfile
        super().__enter__()
        # SIGTERM must end the children too, so it leaves through the same door as an exception.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.dir = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-loadtest-")))
        return self

    def start(self, name, address, command, core=None):
        """Starts a server, pinned to a core if one is named, and waits until it accepts connections."""
        log = self.dir / f"{name}.log"
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        with log.open("wb") as output:
            process = subprocess.Popen([*pinned, *map(str, command)], cwd=self.dir, stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=output, start_new_session=True)
        self.callback(stop, process)
        deadline = time.monotonic() + START_LIMIT
        while not accepts(address):
            if process.poll() is not None or time.monotonic() > deadline:
                fail(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        return Server(name, address, process)

    def nginx(self, name, http, address, core=None, master=False, modules=()):
        """Starts nginx with the given `http` block: as one process, or with a master, which can reload."""
        home = self.dir / name
        home.mkdir()
        temporary = "".join(f"{kind}_temp_path {home}/{kind};\n"
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        loaded = "".join(f"load_module {module};\n" for module in modules)
        (home / "nginx.conf").write_text(
            f"{loaded}daemon off; master_process {'on' if master else 'off'}; worker_processes 1; pid {home}/pid; error_log {home}/error.log;\n"
            f"worker_rlimit_nofile {resource.getrlimit(resource.RLIMIT_NOFILE)[0]};\n"
            f"events {{ worker_connections 15000; }}\n"
            f"http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; sendfile on; tcp_nopush on;\n"
            f"open_file_cache max=100; client_max_body_size 0;\n{temporary}{http}\n}}\n")
        return self.start(name, address, ["nginx", "-p", home, "-c", home / "nginx.conf"], core)

    def varnish(self, upstream, address, core=None):
        """Starts Varnish with a cache in memory; what its upstream says nothing about is kept for an hour."""
        home = self.dir / "varnish"
        home.mkdir()
        return self.start("varnish", address, ["varnishd", "-j", "none", "-F", "-n", home, "-a", address, "-b", upstream,
                                               "-T", "none", "-s", "malloc,256m", "-p", "default_ttl=3600"], core)

    def tollgate(self, binary, config, address, name="tollgate", core=None, wrapper=()):
        """Starts tollgate with `config`, a document as Python data (JSON is YAML)."""
        file = self.dir / f"{name}.yaml"
        file.write_text(json.dumps(config, indent=1))
        return self.start(name, address, [*wrapper, binary, "run", "-c", file], core)

    def bare(self, binary, upstream, name="bare", core=None, wrapper=()):
        """Starts the reference proxy in front of `upstream`."""
        address = free_address()
        return self.start(name, address, [*wrapper, binary, address, upstream], core)


def config(address, upstream, log="none", routes=None, flood=None, **defaults):
    """The document the load tests use: one thread, one upstream without probes, one route unless told otherwise."""
    return {
        "version": 1,
        "process": {"threads": 1},
        "admin": {"bind": "none"},
        "telemetry": {"access_log": "none" if log == "none" else {"to": str(log)}},
        "listeners": {"web": {"bind": address, "limits": {"keepalive": "10m", **({"flood": flood} if flood else {})}}},
        "defaults": {"auth": "public", **defaults},
        "upstreams": {"app": {"targets": [upstream], "health": {"probe": "none"}}},
        "apis": {"app": {"routes": routes or {"all": {"match": "/**", "to": "app"}}}},
    }


def accepts(address):
    """Whether a connection to the address is accepted."""
    try:
        socket.create_connection(endpoint(address), timeout=1).close()
        return True
    except OSError:
        return False


def stop(process):
    """INT, which every server here takes as "now", and KILL when it does not obey."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(START_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def read_response(connection):
    """Reads one response with Content-Length from a socket; returns its status code."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, body = data.split(b"\r\n\r\n", 1)
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    left = length - len(body)
    while left > 0:
        left -= len(receive(connection))
    return int(head.split()[1])


def receive(connection):
    """Some bytes; a closed connection is an error."""
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the connection was closed inside a response")
    return data


def certificate(folder):
    """A certificate for localhost that signs itself, on P-256, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    # One that may sign others, OpenSSL takes for a server's own and rustls does not.
                    "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def processes_with(file):
    """Every process that was started as `... run ... file`: with an upgrade, one comes after the other."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(file).encode() in command and b"\0run\0" in command:
                found.append(int(entry.name))
    return found


def kill_all_with(file):
    """Ends what an upgrade has left."""
    for pid in processes_with(file):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def open_files(pid):
    """How many files and sockets a process has open; 0 if it has just ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return 0


def tools():
    """The versions of the programs that measure."""
    found = {}
    for program, argument in (("wrk", "-v"), ("h2load", "--version"), ("openssl", "version"), ("curl", "--version"),
                              ("python3", "--version")):
        done = subprocess.run([program, argument], capture_output=True, text=True)
        version = re.search(r"(\d+\.\d+[^\s,]*)", done.stdout + done.stderr)
        found[program] = version[1] if version else "unknown"
    return found


def machine():
    """What a result must carry to be compared: processor, kernel, versions, commit."""
    cpu = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
                            capture_output=True, text=True).stdout.strip()
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "commit": commit or "unknown",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
