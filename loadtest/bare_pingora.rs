//! The reference of the load tests: the smallest honest Pingora proxy, with no step, no log and no metric.
//!
//! `bare-pingora LISTEN UPSTREAM`, for example `bare-pingora 127.0.0.1:8081 127.0.0.1:3000`. What tollgate costs is
//! measured against it in the same run, so it is built with the same profile and allocator and leaves every other
//! setting at the engine's default.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::upstreams::peer::HttpPeer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One upstream; the peer is built once and cloned for each request.
struct Bare(HttpPeer);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (args.next(), args.next()) else {
        return Err("usage: bare-pingora LISTEN UPSTREAM".into());
    };
    let mut peer = HttpPeer::new(upstream.parse::<SocketAddr>()?, false, String::new());
    peer.options.connection_timeout = Some(Duration::from_secs(1));
    peer.options.read_timeout = Some(Duration::from_secs(30));
    peer.options.idle_timeout = Some(Duration::from_secs(60));

    // The engine's default pool of 128 would close connections under 10,000 clients.
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 4096, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare(peer));
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever()
}
