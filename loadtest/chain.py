"""The chain of an API behind tokens, as the load tests measure it: a JWT is verified, its consumer limited and named to
the upstream, headers are changed both ways, and the request is logged as JSON and counted.

256 consumers take turns. What they are asked with is real: signatures are made by openssl, and a server that lets a bad
token through, forgets a header or writes no log is not measured.
"""

import base64
import hashlib
import hmac
import http.client
import json
import subprocess
import time

import servers

ALGORITHMS = ("HS256", "RS256", "ES256")
CONSUMERS = 256
SECRET = "a-secret-of-32-bytes-for-the-test"
ISSUER, AUDIENCE = "https://id.example", "api"
# So many requests a minute are allowed at /limited, to see that limits are applied.
FEW = 3
# What the upstream answers with at /seen, so that what the chain does to a request can be seen.
SEEN = 'location = /seen { return 200 "$http_x_user,$http_x_edge,$http_x_debug"; }'
SCRIPT = """
local tokens = { %s }
local requests, last = {}, 0
function init()
  for number, token in ipairs(tokens) do
    requests[number] = wrk.format(nil, nil, { Authorization = "Bearer " .. token })
  end
end
function request()
  last = last %% #requests + 1
  return requests[last]
end
"""


class Chain:
    """Keys of one algorithm, a token for each consumer, and the configuration that goes with them."""

    def __init__(self, lab, algorithm):
        self.algorithm = algorithm
        self.private, self.public = lab.dir / f"{algorithm}-private.pem", lab.dir / f"{algorithm}-public.pem"
        if algorithm != "HS256":
            kind = ("RSA", "rsa_keygen_bits:2048") if algorithm == "RS256" else ("EC", "ec_paramgen_curve:P-256")
            openssl("genpkey", "-algorithm", kind[0], "-pkeyopt", kind[1], "-out", self.private)
            openssl("pkey", "-in", self.private, "-pubout", "-out", self.public)
        self.tokens = [self.token(f"user-{number}") for number in range(CONSUMERS)]

    def config(self, address, upstream, log, cache):
        """The document; `cache` is how many verified tokens are remembered."""
        document = servers.config(
            address, upstream, log=log, auth="users", limits=["1000000/s per consumer"],
            routes={"all": {"match": "/**", "to": "app"},
                    "limited": {"match": "/limited", "to": "app", "limits": [f"{FEW}/m per consumer"]}},
            request={"headers": {"set": {"x-edge": "edge"}, "remove": ["x-debug"]}},
            response={"headers": {"set": {"x-served": "edge"}, "remove": ["server"]}})
        key = {"secret": SECRET} if self.algorithm == "HS256" else {"pem": str(self.public)}
        document["auth"] = {"users": {"jwt": {
            "issuer": ISSUER, "audience": AUDIENCE, "algorithms": [self.algorithm], **key,
            "cache": cache, "forward": {"x-user": "sub"}}}}
        document["consumers"] = {f"user-{number}": {} for number in range(CONSUMERS)}
        return document

    def token(self, subject, seconds=86400):
        """A token (RFC 7515) that is good for so long."""
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": int(time.time()) + seconds,
                  "scope": "read write"}
        header = {"alg": self.algorithm, "typ": "JWT"}
        message = b".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        return (message + b"." + encoded(self.signature(message))).decode()

    def signature(self, message):
        if self.algorithm == "HS256":
            return hmac.new(SECRET.encode(), message, hashlib.sha256).digest()
        made = openssl("dgst", "-sha256", "-sign", self.private, message=message)
        return made if self.algorithm == "RS256" else without_der(made)

    def jwks(self):
        """The public key, or the secret, as a key set (RFC 7517)."""
        if self.algorithm == "HS256":
            key = {"kty": "oct", "k": encoded(SECRET.encode()).decode()}
        elif self.algorithm == "RS256":
            modulus = openssl("rsa", "-pubin", "-in", self.public, "-modulus", "-noout").decode().strip().partition("=")[2]
            key = {"kty": "RSA", "n": encoded(bytes.fromhex(modulus)).decode(), "e": "AQAB"}
        else:
            point = openssl("pkey", "-pubin", "-in", self.public, "-outform", "DER")[-64:]
            key = {"kty": "EC", "crv": "P-256", "x": encoded(point[:32]).decode(), "y": encoded(point[32:]).decode()}
        return {"keys": [{"alg": self.algorithm, **key}]}

    def script(self):
        """A script for wrk that sends the tokens in turn."""
        return SCRIPT % ", ".join(f'"{token}"' for token in self.tokens)

    def require_works(self, server, log):
        """Fails unless the server does all that the chain is measured for."""
        if wrong := self.wrong(server.address, log):
            servers.fail(f"{server.name} {wrong}")

    def wrong(self, address, log):
        """What a gateway does not do of what the chain is measured for; None if it does everything."""
        return self.wrong_with_tokens(address) or self.wrong_with_limits(address) or wrong_with_log(log)

    def wrong_with_tokens(self, address):
        good = self.tokens[7]
        for name, token, wanted in (("a good", good, 200), ("a bad", bad(good), 401), ("a good", good, 200),
                                    ("an old", self.token("user-7", -3600), 401), ("no", None, 401)):
            status, headers, body = get(address, "/seen", token)
            if status != wanted:
                return f"answers {status} to {name} token, not {wanted}"
            seen = (body, headers.get("x-served"), headers.get("server"))
            if wanted == 200 and seen != ("user-7,edge,", "edge", None):
                return f"does not change headers as it should: {seen}"
        return None

    def wrong_with_limits(self, address):
        codes = [get(address, "/limited", self.tokens[8])[0] for _ in range(FEW + 3)]
        return None if 429 in codes and codes[0] == 200 else f"does not limit: {codes}"


def bad(token):
    """With another signature: the first character is changed, since the last one may carry bits that do not count."""
    start = token.rindex(".") + 1
    return token[:start] + ("B" if token[start] == "A" else "A") + token[start + 1:]


def wrong_with_log(log):
    """Whether the log does not tell who calls, as JSON."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lines = [line for line in log.read_text(errors="replace").splitlines() if "user-7" in line] if log.exists() else []
        if lines:
            try:
                return None if isinstance(json.loads(lines[0]), dict) else "writes a log that is not one of objects"
            except ValueError:
                return f"writes a log that is not JSON: {lines[0][:200]}"
        time.sleep(0.05)
    return "does not log who calls"


def get(address, path, token):
    """One GET, with a forged `x-user` and something to remove: status, headers (names in lower case), body."""
    connection = http.client.HTTPConnection(*servers.endpoint(address), timeout=60)
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request("GET", path, headers={"X-User": "forged", "X-Debug": "1", **authorization})
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    body = response.read().decode()
    connection.close()
    return response.status, headers, body


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def without_der(signature):
    """An ECDSA signature as JWS has it (RFC 7518 section 3.4): two numbers of 32 bytes, without the DER around them."""
    numbers, rest = b"", signature[2:]
    for _ in range(2):
        length = rest[1]
        numbers += int.from_bytes(rest[2:2 + length], "big").to_bytes(32, "big")
        rest = rest[2 + length:]
    return numbers


def openssl(*arguments, message=b""):
    done = subprocess.run(["openssl", *map(str, arguments)], input=message, capture_output=True)
    if done.returncode:
        servers.fail(f"openssl: {done.stderr.decode(errors='replace')}")
    return done.stdout
