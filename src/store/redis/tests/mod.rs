//! Against real servers: `redis-server` must be installed.

mod decisions;
mod exchange;
mod failures;
mod topologies;

use super::{RedisStore, StoreError};
use crate::store::{Demand, Limit, Outcome, Rule, document};
use crate::tasks::Supervisor;
use crate::value::{Positive, Secret, Span, Spanned};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// Longest time for something that has to come true.
const PATIENCE: Duration = Duration::from_secs(15);

/// A server of its own, gone with the value.
struct Server {
    child: Child,
    port: u16,
    dir: TempDir,
    options: Vec<String>,
}

impl Server {
    async fn start(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        // Somebody else may take the port before the server does.
        for _ in 0..5 {
            let port = free_port();
            let dir = tempfile::tempdir().unwrap();
            let mut server =
                Server { child: launch(port, &dir, &options), port, dir, options: options.clone() };
            if server.answers().await {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.child = launch(self.port, &self.dir, &self.options);
        assert!(self.answers().await, "redis-server does not start again");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    async fn answers(&mut self) -> bool {
        for _ in 0..300 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if ping(self.port).await.is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(arguments).output();
    String::from_utf8_lossy(&output.expect("redis-cli is installed").stdout).into_owned()
}

fn launch(port: u16, dir: &TempDir, options: &[String]) -> Child {
    let port = port.to_string();
    let mut command = Command::new("redis-server");
    if !options.iter().any(|option| option == "--sentinel") {
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(dir.path());
    }
    let options = options.iter().map(|option| option.replace("PORT", &port));
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed")
}

/// Whether something answers there, be it with an error.
async fn ping(port: u16) -> Option<()> {
    let asked = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()?;
        Some(())
    };
    tokio::time::timeout(Duration::from_millis(500), asked).await.ok()?
}

fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        // A cluster node also listens 10000 further.
        if port < 50_000 {
            return port;
        }
    }
}

fn spec(url: &str) -> document::Redis {
    let url = Spanned::built_in(Secret::new(url.to_owned()));
    document::Redis { url, timeout: Positive::new(Span::millis(500)), pool: None, prefix: None, ca: None }
}

/// A store that is up, and what keeps it so.
async fn connect(spec: &document::Redis) -> (Arc<RedisStore>, Supervisor) {
    let store = Arc::new(RedisStore::new(spec).unwrap());
    let supervisor = Supervisor::new(Handle::current());
    supervisor.adopt(store.tasks());
    assert!(store.ready(PATIENCE).await, "no connection");
    (store, supervisor)
}

fn rate(name: &str, count: u32, period: u64, burst: u32) -> Limit {
    Limit::new(name.into(), Rule::Rate { count, period: Duration::from_secs(period), burst })
}

fn demand<'a>(limit: &'a Limit, key: &'a str) -> Demand<'a> {
    Demand { limit, key: key.as_bytes(), cost: 1, shadow: false }
}

async fn take(store: &RedisStore, limit: &Limit, key: &str) -> Result<Outcome, StoreError> {
    store.take(&[demand(limit, key)]).await.map(|outcomes| outcomes[0])
}

/// Waits until calls succeed again.
async fn recovered(store: &RedisStore, limit: &Limit) {
    let works = async {
        while take(store, limit, "recovery").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, works).await.expect("no recovery");
}
