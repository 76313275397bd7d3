//! The reference of the load tests: the smallest honest Pingora proxy, with no step, no log and no metric.
//!
//! `bare-pingora LISTEN UPSTREAM`, for example `bare-pingora 127.0.0.1:8081 127.0.0.1:3000`. Further listeners follow:
//! `http LISTEN UPSTREAM`, `cache LISTEN UPSTREAM`, `grpc LISTEN UPSTREAM` (HTTP/2 in cleartext on both sides) and
//! `tls LISTEN UPSTREAM CERT KEY` (HTTP/2 and HTTP/1.1). What tollgate costs is measured against it in the same run, so it
//! is built with the same profile and allocator and leaves every other setting at the engine's default.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use pingora::apps::HttpServerOptions;
use pingora::http::ResponseHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::upstreams::peer::HttpPeer;
use pingora_cache::{CacheKey, CacheMetaDefaults, MemCache, RespCacheable, filters::resp_cacheable};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FRESH: CacheMetaDefaults =
    CacheMetaDefaults::new(|status| (status == StatusCode::OK).then_some(Duration::from_secs(3600)), 0, 0);
const USAGE: &str = "usage: bare-pingora LISTEN UPSTREAM [http|cache|grpc|tls LISTEN UPSTREAM [CERT KEY]]...";

/// One upstream; the peer is built once and cloned for each request.
struct Bare {
    peer: HttpPeer,
    cache: Option<&'static MemCache>,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }

    fn request_cache_filter(&self, session: &mut Session, (): &mut ()) -> pingora::Result<()> {
        if let Some(cache) = self.cache {
            session.cache.enable(cache, None, None, None, None);
        }
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, (): &mut ()) -> pingora::Result<CacheKey> {
        Ok(CacheKey::new(session.req_header().uri.to_string(), ""))
    }

    fn response_cache_filter(
        &self,
        _: &Session,
        response: &ResponseHeader,
        (): &mut (),
    ) -> pingora::Result<RespCacheable> {
        Ok(resp_cacheable(None, response.clone(), false, &FRESH))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The engine's default pool of 128 would close connections under 10,000 clients.
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 4096, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let mut args = std::env::args().skip(1);
    let mut kind = Some("http".to_owned());
    while let Some(this) = kind {
        add_listener(&mut server, &this, &mut args)?;
        kind = args.next();
    }
    server.run_forever()
}

fn add_listener(
    server: &mut Server,
    kind: &str,
    args: &mut impl Iterator<Item = String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (Some(listen), Some(upstream)) = (args.next(), args.next()) else {
        return Err(USAGE.into());
    };
    let mut peer = HttpPeer::new(upstream.parse::<SocketAddr>()?, false, String::new());
    peer.options.connection_timeout = Some(Duration::from_secs(1));
    peer.options.read_timeout = Some(Duration::from_secs(30));
    peer.options.idle_timeout = Some(Duration::from_secs(60));
    if kind == "grpc" {
        peer.options.set_http_version(2, 2);
    }
    let cache = (kind == "cache").then(|| &*Box::leak(Box::new(MemCache::new())));
    let mut service = http_proxy_service(&server.configuration, Bare { peer, cache });
    match (kind, args) {
        ("http" | "cache", _) => service.add_tcp(&listen),
        ("grpc", _) => {
            let mut options = HttpServerOptions::default();
            options.h2c = true;
            service.app_logic_mut().ok_or(USAGE)?.server_options = Some(options);
            service.add_tcp(&listen);
        }
        ("tls", args) => {
            let (Some(cert), Some(key)) = (args.next(), args.next()) else {
                return Err(USAGE.into());
            };
            let mut settings = TlsSettings::intermediate(&cert, &key)?;
            settings.enable_h2();
            service.add_tls_with_settings(&listen, None, settings);
        }
        _ => return Err(USAGE.into()),
    }
    server.add_service(service);
    Ok(())
}
