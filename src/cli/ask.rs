//! Asks the running gateway over its admin listener.

use super::Exit;
use super::output::talk;
use clap::Args;
use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the running gateway is asked.
#[derive(Clone, Debug, Args)]
pub(super) struct AdminAddress {
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
    admin_token: Option<String>,
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.admin)
    }
}

impl AdminAddress {
    /// Status and body of a GET; what went wrong has been said.
    pub(super) fn ask(&self, target: &str) -> Result<(u16, String), Exit> {
        self.send("GET", target, PATIENCE)
    }

    /// Status and body of a request that may take so long; what went wrong has been said.
    pub(super) fn send(&self, method: &str, target: &str, within: Duration) -> Result<(u16, String), Exit> {
        match send(&self.admin, self.admin_token.as_deref(), (method, target), within) {
            Ok((401, _)) => {
                talk("error: the gateway wants a token: --admin-token or TOLLGATE_ADMIN_TOKEN");
                Err(Exit::Refused)
            }
            Ok((403, body)) => {
                talk(&format!("error: the gateway refuses: {}", reason(&body)));
                Err(Exit::Refused)
            }
            Ok(answer) => Ok(answer),
            Err(error) => {
                talk(&format!("error: no gateway at {}: {error}", self.admin));
                Err(Exit::Unreachable)
            }
        }
    }
}

/// What a JSON answer says went wrong; any other as it is.
pub(super) fn reason(body: &str) -> String {
    let told: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let error = told.as_ref().and_then(|told| told.get("error")).and_then(serde_json::Value::as_str);
    error.unwrap_or(body.trim_end()).to_owned()
}

/// One request, and the connection is closed behind it.
fn send(
    admin: &str,
    token: Option<&str>,
    (method, target): (&str, &str),
    within: Duration,
) -> Result<(u16, String), String> {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n{token}\r\n"
    );
    let answer = match admin.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(within))?;
            exchange(stream, &request)
        }),
        None => {
            let address = admin.strip_prefix("http://").unwrap_or(admin).trim_end_matches('/');
            connect(address).and_then(|stream| {
                stream.set_read_timeout(Some(within))?;
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
