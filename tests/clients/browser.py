"""Chromium without a window, told what to do over WebDriver."""

import contextlib
import json
import subprocess
import tempfile
import urllib.request

from house import Scenarios, eventually, free_port

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--ignore-certificate-errors",
]


class Browser:
    """One browser with one page."""

    def __init__(self, folder):
        self.profile = tempfile.TemporaryDirectory(prefix="profile-", dir=folder)
        self.port = free_port()
        log = open(folder / "chromedriver.log", "wb")
        self.driver = subprocess.Popen(["chromedriver", f"--port={self.port}"], stdout=log, stderr=log)
        eventually("the driver is ready", self.is_ready)
        options = {"args": [*ARGUMENTS, f"--user-data-dir={self.profile.name}"]}
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        self.session = self.ask("/session", wanted)["sessionId"]
        self.tell("/timeouts", {"script": 60_000, "pageLoad": 60_000})

    def is_ready(self):
        with contextlib.suppress(OSError):
            return self.ask("/status")["ready"]

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"content-type": "application/json"})
        try:
            answer = urllib.request.urlopen(request, timeout=90)
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None
        return json.load(answer)["value"]

    def tell(self, path, body):
        return self.ask(f"/session/{self.session}{path}", body)

    def load(self, address):
        self.tell("/url", {"url": address})

    def run(self, script, *arguments):
        """Runs the body of an asynchronous function in the page, and gives what it returns."""
        body = (
            "const done = arguments[arguments.length - 1], given = Array.from(arguments).slice(0, -1);"
            f"(async (...args) => {{ {script} }})(...given).then(value => done({{value}}), error => done({{error: String(error)}}));"
        )
        ended = self.tell("/execute/async", {"script": body, "args": list(arguments)})
        assert "error" not in ended, ended["error"]
        return ended.get("value")

    def close(self):
        with contextlib.suppress(AssertionError, OSError):
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/session/{self.session}", method="DELETE"), timeout=20)
        self.driver.terminate()
        self.driver.wait(20)
        with contextlib.suppress(OSError):
            self.profile.cleanup()


def bases(house):
    return {"http/1.1": f"http://127.0.0.1:{house.web}", "h2": f"https://localhost:{house.tls}"}


def on_page(house, protocol, script, *arguments):
    """Runs a script on a page that came over a protocol."""
    if not hasattr(house, "browser"):
        house.browser = Browser(house.folder)
    house.browser.load(f"{bases(house)[protocol]}/page/index.html")
    return house.browser.run(script, *arguments)


class Closing(Scenarios):
    """The last scenario takes the browser down."""

    def all(self, house):
        yield from super().all(house)
        if hasattr(house, "browser"):
            house.browser.close()
            del house.browser


SCENARIOS = Closing()


@SCENARIOS("chromium", "a page over HTTP/1.1, and over HTTP/2 with TLS, compressed")
def pages(house):
    script = """
        const entry = performance.getEntriesByType('navigation')[0];
        return [document.title, entry.nextHopProtocol, entry.responseStatus];
    """
    for protocol in bases(house):
        loaded = on_page(house, protocol, script)
        assert loaded == ["through the gateway", protocol, 200], loaded
        fetched = on_page(house, protocol, """
            const answer = await fetch('/bodies/text');
            return [answer.status, answer.headers.get('content-encoding'), (await answer.text()).length];
        """)
        assert fetched == [200, "zstd", 23600], fetched


@SCENARIOS("chromium", "uploads from a page, as a blob and as a form")
def uploads(house):
    for protocol in bases(house):
        sent = on_page(house, protocol, """
            const blob = new Blob([new Uint8Array(3_000_000).fill(7)]);
            const one = await fetch('/bodies/blob', {method: 'POST', body: blob});
            const form = new FormData();
            form.append('file', blob, 'ünicode.bin');
            const two = await fetch('/bodies/form', {method: 'POST', body: form});
            return [parseInt(await one.text()), parseInt(await two.text()) > 3_000_000];
        """)
        assert sent == [3_000_000, True], sent


@SCENARIOS("chromium", "fetch across origins with a preflight, credentials and exposed fields")
def allowed(house):
    heard = on_page(house, "http/1.1", """
        const answer = await fetch(args[0] + '/friends/allowed', {
            method: 'PUT', body: '{}', credentials: 'include', headers: {'x-custom': '1', 'content-type': 'application/json'},
        });
        return [answer.status, answer.headers.get('x-total'), answer.headers.get('x-hidden'), parseInt(await answer.text())];
    """, bases(house)["h2"])
    assert heard == [200, "42", None, 2], heard
    asked = house.origin.of("/friends/allowed")
    assert [one["method"] for one in asked] == ["PUT"], "the gateway answers preflights itself"
    preflights = [line for line in house.lines("/friends/allowed") if line["method"] == "OPTIONS"]
    assert [line["status"] for line in preflights] == [204], preflights


@SCENARIOS("chromium", "fetch across origins that is refused: origin, method, field")
def refused(house):
    script = """
        try { await fetch(args[0], args[1]); return 'it was let through'; } catch (error) { return String(error); }
    """
    base = bases(house)["h2"]
    for path, options, reached in [
        ("/others/origin", {"method": "PUT", "body": "x"}, False),
        ("/friends/method", {"method": "DELETE"}, False),
        ("/friends/field", {"headers": {"x-other": "1"}}, False),
        # What needs no preflight is sent, and its answer kept from the page.
        ("/others/simple", {}, True),
    ]:
        assert on_page(house, "http/1.1", script, base + path, options) == "TypeError: Failed to fetch", path
        assert bool(house.origin.of(path)) == reached, path


SOCKET = """
    const socket = new WebSocket(args[0]);
    socket.binaryType = 'arraybuffer';
    const next = name => new Promise(resolve => { socket['on' + name] = resolve; });
    await Promise.race([next('open'), next('error').then(() => { throw 'not opened'; })]);
    const echo = async message => { const heard = next('message'); socket.send(message); return (await heard).data; };
"""


@SCENARIOS("chromium", "WebSocket: text, binary, 1 MiB, over ws: and wss:")
def sockets(house):
    for protocol, base in bases(house).items():
        heard = on_page(house, protocol, SOCKET + """
            const text = await echo('hello ünicode'), empty = await echo('');
            const noise = new Uint8Array(1 << 20).map((_, at) => at * 31 % 251);
            const back = new Uint8Array(await echo(noise));
            const closed = next('close');
            socket.close(3001, 'done');
            const {code, reason, wasClean} = await closed;
            return [text, empty, back.length, back.every((byte, at) => byte === noise[at]), code, reason, wasClean];
        """, base.replace("http", "ws", 1) + "/sockets/browser")
        assert heard == ["hello ünicode", "", 1 << 20, True, 3001, "done", True], heard
    eventually("the origin knows", lambda: len(house.sockets.ends("/sockets/browser")) == 2)
    assert set(house.sockets.ends("/sockets/browser")) == {(3001, "done")}


@SCENARIOS("chromium", "WebSocket: codes of the origin, an end without one, and a refusal")
def socket_ends(house):
    base = bases(house)["http/1.1"].replace("http", "ws", 1)
    script = SOCKET + """
        const closed = next('close');
        socket.send(args[1]);
        const {code, reason, wasClean} = await closed;
        return [code, reason, wasClean];
    """
    for said, wanted in [
        ("!close 1000 bye", [1000, "bye", True]),
        ("!close 4321 ünicode", [4321, "ünicode", True]),
        ("!close 1011 oops", [1011, "oops", True]),
        ("!abort", [1006, "", False]),
    ]:
        heard = on_page(house, "http/1.1", script, base + "/sockets/ends", said)
        assert heard == wanted, (said, heard)
    told = on_page(house, "http/1.1", "try { " + SOCKET + " return 'opened'; } catch (error) { return error; }", base + "/members/x")
    assert told == "not opened", told


EVENTS = """
    const source = new EventSource(args[0]), heard = [];
    const began = performance.now();
    await new Promise((resolve, reject) => {
        source.onmessage = event => {
            heard.push([parseInt(event.lastEventId), parseFloat(event.data.split(' ')[1]) * 1000, Date.now()]);
            if (heard.length === args[1]) resolve();
        };
        setTimeout(() => reject('only ' + heard.length + ' events'), 40_000);
    });
    source.close();
    return heard;
"""


@SCENARIOS("chromium", "EventSource: events come one by one as they are sent, on a route that compresses")
def events(house):
    worst = 0
    for protocol in bases(house):
        heard = on_page(house, protocol, EVENTS, f"/events/one-by-one?count=5&gap=0.4&{protocol}", 5)
        assert [number for number, _, _ in heard] == [1, 2, 3, 4, 5], heard
        late = [there - sent for _, sent, there in heard]
        assert max(late) < 350, f"events are held back: {late} ms late"
        worst = max(worst, *late)
    return f"at most {worst:.0f} ms late"


@SCENARIOS("chromium", "EventSource: after an end it comes again with Last-Event-ID")
def comes_again(house):
    for protocol in bases(house):
        path = f"/events/again-{protocol[:2]}"
        heard = on_page(house, protocol, EVENTS, f"{path}?count=2&gap=0.1", 6)
        assert [number for number, _, _ in heard] == [1, 2, 3, 4, 5, 6], heard
        last = [asked["headers"].get("Last-Event-ID") or asked["headers"].get("last-event-id") for asked in house.origin.of(path)]
        assert last[:3] == [None, "2", "4"], last


@SCENARIOS("chromium", "EventSource: quiet for longer than response and idle together")
def quiet(house):
    for protocol in bases(house):
        heard = on_page(house, protocol, EVENTS, f"/events/quiet-{protocol[:2]}?count=2&gap=3.5", 2)
        assert [number for number, _, _ in heard] == [1, 2], heard
        assert len(house.origin.of(f"/events/quiet-{protocol[:2]}")) == 1, "and on one connection"


@SCENARIOS("chromium", "EventSource: a page that has had enough ends the stream at the origin")
def enough(house):
    for protocol in bases(house):
        path = f"/events/enough-{protocol[:2]}"
        on_page(house, protocol, EVENTS, f"{path}?count=1000&gap=0.05", 3)
        line = house.lines(path)[0]
        assert line["reason"] == "client-gone" and line["duration_ms"] < 10_000, line
