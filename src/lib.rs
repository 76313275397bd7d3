//! # tollgate: an API gateway on Pingora
//!
//! One binary, one YAML file. This library is the whole gateway; the binary only calls [`cli::main`].
//!
//! ## Bird's-eye view
//!
//! ```text
//!  file ──config──► Document ──snapshot──► Snapshot ◄── pinned by each request
//!                                             │
//!  client ──listen──► gateway: admit ──► filters ──► action ──► upstream ──► target
//!                        │                 ▲                        │
//!                        └──── respond ────┴──────── response ◄─────┘
//!                                     record (log, metrics)
//! ```
//!
//! A configuration is read into a [`config::Document`], every finding with its place, and built into a
//! [`snapshot::Snapshot`]: names resolved, templates and regexes compiled, metric handles at hand. Building starts nothing; a
//! running process swaps one pointer. A request takes the current snapshot when it arrives and keeps it to the end.
//!
//! The engine (Pingora's `HttpProxy`) calls [`gateway`] for HTTP/2 clients, [`server`] does for HTTP/1.1 clients; it calls down
//! and is never called from below. What HTTP/1.1 clients say is parsed and written by [`listen`], what targets say by
//! [`upstream`].
//! Steps ([`filters`]) see a request head and an [`exchange::Exchange`], nothing of the engine, and run in one fixed order; an
//! action ([`actions`]) ends a route. Sockets, signals and the drain are our own ([`server`]).
//!
//! ## Glossary
//!
//! | word | meaning |
//! |---|---|
//! | listener | a place where clients connect |
//! | api | hosts, a base path and routes that belong together |
//! | route | what a request must be, and what becomes of it |
//! | rule | one way to reach a route: a route with two hosts has two |
//! | step | something a request passes on its way; in code a `Filter` |
//! | action | what ends a route: proxy, respond, redirect |
//! | upstream | a service behind the gateway; it has targets |
//! | target | one address of an upstream |
//! | lease | a request's hold on a target |
//! | attempt | one try to have a request answered by a target |
//! | conversation | a request to a target and its answer, on the wire |
//! | exchange | one request and its response: all facts about it |
//! | reply | an answer that tollgate makes itself |
//! | problem | a reply that tells of an error (RFC 9457) |
//! | provider | proves one kind of credential |
//! | consumer | someone who calls, known by name |
//! | identity | who a request comes from, as far as it has proven |
//! | plan | what a consumer may do: limits and a quota |
//! | limit | how often; a quota is how much in a day, week or month |
//! | store | where limits and quotas are counted |
//! | snapshot | a configuration that can run |
//! | successor | a process that takes over from the running one |
//! | task | something that runs in the background |
//! | issue | a finding in a configuration, with its place |
//!
//! ## Invariants
//!
//! - The order of the `mod` lines below is the order of dependency: a module uses only modules above it.
//! - Nothing is parsed, compiled or looked up by name on the request path that could have been when the snapshot was built.
//! - One place each: answers of our own are written by `Context::respond` in [`gateway`], errors are told apart in
//!   [`outcome`] and worded in [`reply`], a request is recorded by [`observe::record`], metrics are declared in
//!   [`observe::metrics`], background tasks run under one [`tasks::Supervisor`].
//! - Only [`gateway`] touches the engine's `Session`.
//! - No panic is reachable from the network or the configuration; `unsafe` is forbidden.
//!
//! `tests/it/tidy.rs` holds what of this a test can hold.
//!
//! ## Deliberately absent
//!
//! The engine's `Server` and `Service` (see [`server`] for why), its proxying and load balancer (see [`upstream`]), its
//! compression and other modules.

pub mod value;
pub mod consumer;
pub mod exchange;
pub mod grpc;
pub mod reply;
pub mod tasks;
pub mod observe;
pub mod listen;
pub mod upstream;
pub mod store;
pub mod cache;
pub mod compress;
pub mod auth;
pub mod build;
pub mod filters;
pub mod actions;
pub mod route;
pub mod config;
pub mod snapshot;
pub mod prepare;
pub mod admit;
pub mod forward;
pub mod outcome;
pub mod explain;
pub mod attempt;
pub mod head;
pub mod gateway;
pub mod reload;
pub mod admin;
pub mod server;
pub mod cli;
