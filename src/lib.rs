//! tollgate: an API gateway.

pub mod value;
pub mod exchange;
pub mod reply;
pub mod tasks;
pub mod observe;
pub mod listen;
pub mod upstream;
pub mod build;
pub mod filters;
pub mod actions;
pub mod route;
pub mod config;
pub mod snapshot;
pub mod admit;
pub mod forward;
pub mod outcome;
pub mod explain;
pub mod attempt;
pub mod gateway;
pub mod admin;
pub mod server;
pub mod cli;
