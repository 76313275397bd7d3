//! The one integration binary: the tollgate binary is started and spoken to over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says so by panicking, and shows on its standard output what led there"
)]

mod admin;
mod cache;
mod cache_admin;
mod cache_disk;
mod cases;
mod config;
mod diff;
mod explain;
mod framing;
mod grpc;
mod grpc_web;
mod h2_limits;
mod h2_targets;
mod harness;
mod identity;
mod limits;
mod mirror;
mod proxy;
mod redis;
mod reload;
mod relay;
mod resilience;
mod signals;
mod systemd;
mod tidy;
mod tls_changes;
mod tls_clients;
mod tls_listener;
mod traffic;
mod upgrade;
mod upstreams;
mod websocket;
