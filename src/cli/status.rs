//! `tollgate status`: how the running gateway is, asked over its admin listener.

use super::output::{colored, data, fail, json, talk};
use super::{Exit, Global, Output};
use crate::admin::Status as Told;
use clap::Args;
use std::io::{IsTerminal, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(super) const AFTER: &str = "\
Exit code 0 when it is ready, 1 when it is not, 4 when it cannot be reached, 5 when a token is missing or wrong.";

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// The admin listener: `unix:/path` or `http://address:port`
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TOLLGATE_ADMIN",
        default_value = "unix:/run/tollgate/admin.sock"
    )]
    admin: String,
    /// A token, where the admin listener wants one
    #[arg(long, env = "TOLLGATE_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// The same as `-o json`
    #[arg(long)]
    json: bool,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Status {
    pub(super) fn run(&self, global: &Global) -> Exit {
        let answer = match ask(&self.admin, self.token.as_deref()) {
            Ok(answer) => answer,
            Err(error) => {
                talk(&format!("error: no gateway at {}: {error}", self.admin));
                return Exit::Unreachable;
            }
        };
        let (status, body) = answer;
        if status == 401 {
            talk("error: the gateway wants a token: --token or TOLLGATE_ADMIN_TOKEN");
            return Exit::Refused;
        }
        let told: Told = match serde_json::from_str(&body) {
            Ok(told) => told,
            Err(error) => return fail(&format!("what answers at {} is no tollgate: {error}", self.admin)),
        };
        let shown = match self.json || self.output == Output::Json {
            true => json(&told),
            false => data(&human(&told, colored(global, std::io::stdout().is_terminal()))),
        };
        if told.ready && !told.draining { shown } else { Exit::Failed }
    }
}

/// One GET, and the connection is closed behind it.
fn ask(admin: &str, token: Option<&str>) -> Result<(u16, String), String> {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET /status HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{token}\r\n");
    let answer = match admin.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream, &request)
        }),
        None => {
            let address = admin.strip_prefix("http://").unwrap_or(admin).trim_end_matches('/');
            connect(address).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                exchange(stream, &request)
            })
        }
    };
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("the answer is not HTTP")?;
    Ok((status, body.to_owned()))
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(16 << 20).read_to_string(&mut answer)?;
    Ok(answer)
}

fn human(told: &Told, color: bool) -> String {
    let paint =
        |text: &str, code: &str| if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let state = match (told.draining, told.ready) {
        (true, _) => paint("draining", "33"),
        (_, true) => paint("ready", "32"),
        _ => paint("starting", "33"),
    };
    let mut text = format!(
        "tollgate {}  {state}  pid {}  up {}  config {}\n{} listeners, {} APIs, {} routes\n",
        told.version,
        told.pid,
        duration(told.uptime_seconds),
        told.config.get(..6).unwrap_or(&told.config),
        told.listeners,
        told.apis,
        told.routes,
    );
    if told.task_failures > 0 || told.log_dropped > 0 {
        text.push_str(&format!(
            "{} task failures, {} log lines dropped\n",
            told.task_failures, told.log_dropped
        ));
    }
    for upstream in &told.upstreams {
        text.push_str(&format!("upstream {}  {}  {}\n", upstream.name, upstream.protocol, upstream.balance));
        for target in &upstream.targets {
            let health = if target.healthy { paint("up  ", "32") } else { paint("DOWN", "31") };
            let reason = if target.healthy { "" } else { target.reason.as_str() };
            text.push_str(&format!(
                "  {health}  {:<28} weight {:<4} in flight {:<5} {reason}\n",
                target.address, target.weight, target.in_flight
            ));
        }
    }
    text
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
