"""nginx with LuaJIT, which stands for the gateways that are built on it: the chain written by hand for speed, without their
layers, so a lower bound of what they cost. Tokens are verified each time, by libcrypto through LuaJIT's own calls.
"""

import os
import pathlib

import chain
import servers
from peers import CONNECTIONS_KEPT, Peer, Running
from peers.nginx import PASS

# Another root than / takes packages that are unpacked there instead of installed.
ROOT = pathlib.Path(os.environ.get("NGINX_LUA_ROOT", "/"))
MODULES = [ROOT / "usr/lib/nginx/modules" / name for name in ("ndk_http_module.so", "ngx_http_lua_module.so")]
HTTP = """
lua_package_path "{root}/usr/share/lua/5.1/?.lua;;";
lua_package_cpath "{root}/usr/lib/x86_64-linux-gnu/lua/5.1/?.so;{root}/usr/lib/aarch64-linux-gnu/lua/5.1/?.so;;";
lua_shared_dict limits 16m; lua_shared_dict counts 1m;
init_by_lua_block {{ chain = dofile("{script}") }}
upstream app {{ server {origin}; keepalive {kept}; keepalive_requests 1000000000; }}
log_format json escape=json '{{"ts":"$time_iso8601","client":"$remote_addr","method":"$request_method","path":"$uri",'
  '"status":$status,"bytes":$body_bytes_sent,"seconds":$request_time,"consumer":"$consumer","upstream":"$upstream_addr"}}';
server {{ listen {http} backlog=4096; access_log {log} json buffer=64k flush=1s; set $consumer "";
  location / {{ access_by_lua_block {{ chain.access() }} header_filter_by_lua_block {{ chain.headers() }}
    log_by_lua_block {{ chain.count() }} {go} }} }}
server {{ listen {metrics}; location / {{ content_by_lua_block {{ chain.metrics() }} }} }}
"""
SCRIPT = """
local ffi, cjson = require "ffi", require "cjson.safe"
ffi.cdef [[
typedef struct evp_md_st EVP_MD;
const EVP_MD *EVP_sha256(void);
unsigned char *HMAC(const EVP_MD *, const void *, int, const char *, size_t, unsigned char *, unsigned int *);
int CRYPTO_memcmp(const void *, const void *, size_t);
]]
local C, digest, length = ffi.C, ffi.new "unsigned char[32]", ffi.new "unsigned int[1]"
local secret, issuer, audience, few = "%(secret)s", "%(issuer)s", "%(audience)s", %(few)d
local find, sub, gsub, byte = string.find, string.sub, string.gsub, string.byte
local limits, counts = ngx.shared.limits, ngx.shared.counts
local standard = { ["-"] = "+", ["_"] = "/" }

local function decoded(part)
  return ngx.decode_base64((gsub(part, "[-_]", standard)) .. string.rep("=", -#part %% 4))
end

local function claims_of(authorization)
  if not authorization or sub(authorization, 1, 7) ~= "Bearer " then return nil end
  local first = find(authorization, ".", 8, true)
  local second = first and find(authorization, ".", first + 1, true)
  if not second then return nil end
  local header = cjson.decode(decoded(sub(authorization, 8, first - 1)) or "")
  local signature = decoded(sub(authorization, second + 1))
  if not header or header.alg ~= "HS256" or not signature or #signature ~= 32 then return nil end
  local message = sub(authorization, 8, second - 1)
  C.HMAC(C.EVP_sha256(), secret, #secret, message, #message, digest, length)
  if C.CRYPTO_memcmp(digest, signature, 32) ~= 0 then return nil end
  local claims = cjson.decode(decoded(sub(authorization, first + 1, second - 1)) or "")
  if not claims or claims.iss ~= issuer or claims.aud ~= audience or claims.exp <= ngx.time() then return nil end
  return claims
end

local function more_than(count, seconds, key)
  return limits:incr(key .. math.floor(ngx.time() / seconds), 1, 0, seconds + 1) > count
end

local chain = {}

function chain.access()
  local claims = claims_of(ngx.var.http_authorization)
  if not claims then return ngx.exit(401) end
  if more_than(1000000, 1, claims.sub .. ":") then return ngx.exit(429) end
  if ngx.var.uri == "/limited" and more_than(few, 60, claims.sub .. ":few:") then return ngx.exit(429) end
  ngx.var.consumer = claims.sub
  ngx.req.set_header("X-User", claims.sub)
  ngx.req.set_header("X-Edge", "edge")
  ngx.req.clear_header("X-Debug")
end

function chain.headers()
  ngx.header["X-Served"] = "edge"
  ngx.header["Server"] = ""
end

function chain.count()
  counts:incr(ngx.status, 1, 0)
end

function chain.metrics()
  for _, status in ipairs(counts:get_keys()) do
    ngx.say('requests_total{status="', status, '"} ', counts:get(status))
  end
end

return chain
"""


class NginxLua(Peer):
    name = "nginx-lua"
    package = "apt-get install libnginx-mod-http-lua lua-cjson"
    kinds = frozenset(("chain",))
    version_arguments = ("-v",)

    def missing(self):
        return super().missing() or (None if all(module.exists() for module in MODULES) else f"not installed: {self.package}")

    def takes(self, setup):
        """Other algorithms and a memory for tokens would have to be written too."""
        return super().takes(setup) and setup.algorithm == "HS256" and setup.remembered > 0

    def start(self, site, setup):
        name, http, metrics = f"nginx-lua-{setup}", servers.free_address(), servers.free_address()
        log = site.lab.dir / f"{name}-access.log"
        script = site.file(f"{name}.lua", SCRIPT % {"secret": chain.SECRET, "issuer": chain.ISSUER, "audience": chain.AUDIENCE,
                                                    "few": chain.FEW})
        block = HTTP.format(root=str(ROOT).rstrip("/"), script=script, origin=site.origin, kept=CONNECTIONS_KEPT, http=http,
                            metrics=metrics, log=log, go=PASS)
        server = site.lab.nginx(name, block, http, core=0, modules=MODULES)
        return Running(server, http, log=log, metrics=f"http://{metrics}/")
