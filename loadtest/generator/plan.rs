//! What is asked for on the command line.

use std::io;
use std::str::FromStr;
use std::time::Duration;

/// How to use the program.
pub const HELP: &str = "\
Load for a server at a fixed rate, or frames for a WebSocket; a report as one line of JSON on stdout.

Usage: load-generator http URL --rate N [options]
       load-generator websocket URL [options]

http: request k is due k/N seconds after the start, whatever became of those before it. The next free connection takes it,
and its latency counts from when it was due: a server that stalls cannot make the generator forget the requests that it
should have sent meanwhile.
websocket: every connection sends a frame, waits until it is echoed, and sends the next.

  --seconds N        how long (default 10)
  --connections N    how many, each with a thread of its own (default 64)
  --rate N           requests a second, over all connections
  --bytes N          http: how long every body must be; websocket: payload of a frame (default 128)
  --status N         what every response must say (default 200)
  --headers FILE     one header a line, 'Name: value'; where a name comes often, requests take its lines in turn
  --ca FILE          whom to trust under https, as PEM
  --interval N       a line of JSON for every N seconds as well
  --new              a new connection for every request
";

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What kind of load.
    pub kind: Kind,
    /// Whether the connection is one of TLS.
    pub secure: bool,
    /// `host:port`, as it goes into the Host field.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// For so long, requests become due.
    pub length: Duration,
    /// Connections, and so threads.
    pub connections: u64,
    /// Requests a second.
    pub rate: f64,
    /// Length of every response body, or of a frame's payload.
    pub bytes: Option<usize>,
    /// The status that counts as success.
    pub status: u16,
    /// A file of header fields.
    pub headers: Option<String>,
    /// A file of trusted certificates.
    pub ca: Option<String>,
    /// How often to report in between.
    pub interval: Option<Duration>,
    /// Whether every request has a connection of its own.
    pub new: bool,
}

/// The kinds of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1 at a fixed rate.
    Http,
    /// Frames as fast as they come back.
    WebSocket,
}

impl Plan {
    /// Reads the arguments after the program's name; `None` when help is asked for.
    pub fn parse(mut args: impl Iterator<Item = String>) -> io::Result<Option<Plan>> {
        let kind = match args.next().as_deref() {
            Some("http") => Kind::Http,
            Some("websocket") => Kind::WebSocket,
            Some("--help" | "-h") => return Ok(None),
            _ => return Err(bad("`http` or `websocket` comes first; see --help")),
        };
        let url = args.next().ok_or_else(|| bad("a URL comes second"))?;
        let mut plan = Plan::to(kind, &url)?;
        while let Some(name) = args.next() {
            plan.set(&name, &mut args)?;
        }
        if kind == Kind::Http && !(plan.rate.is_finite() && plan.rate > 0.0) {
            return Err(bad("--rate must be above 0"));
        }
        Ok(Some(plan))
    }

    fn to(kind: Kind, url: &str) -> io::Result<Plan> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("the URL has no scheme"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Plan {
            kind,
            secure: matches!(scheme, "https" | "wss"),
            authority: authority.to_owned(),
            path: format!("/{path}"),
            length: Duration::from_secs(10),
            connections: 64,
            rate: 0.0,
            bytes: None,
            status: 200,
            headers: None,
            ca: None,
            interval: None,
            new: false,
        })
    }

    fn set(&mut self, name: &str, args: &mut impl Iterator<Item = String>) -> io::Result<()> {
        if name == "--new" {
            self.new = true;
            return Ok(());
        }
        let value = args.next().ok_or_else(|| io::Error::other(format!("{name} needs a value")))?;
        match name {
            "--seconds" => self.length = seconds(&value)?,
            "--connections" => self.connections = number::<u64>(&value)?.max(1),
            "--rate" => self.rate = number(&value)?,
            "--bytes" => self.bytes = Some(number(&value)?),
            "--status" => self.status = number(&value)?,
            "--headers" => self.headers = Some(value),
            "--ca" => self.ca = Some(value),
            "--interval" => self.interval = Some(seconds(&value)?),
            _ => return Err(io::Error::other(format!("unknown option {name}; see --help"))),
        }
        Ok(())
    }

    /// The requests to send, in turn: all fields of the file that come once, and one each of those that come often.
    pub fn requests(&self) -> io::Result<Vec<Vec<u8>>> {
        let text = self.headers.as_ref().map_or(Ok(String::new()), std::fs::read_to_string)?;
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let name = |line: &str| line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let comes_often = |line: &str| lines.iter().filter(|other| name(other) == name(line)).count() > 1;
        let (often, once): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| comes_often(line));
        let close = if self.new { "Connection: close\r\n" } else { "" };
        let head = format!("GET {} HTTP/1.1\r\nHost: {}\r\n{close}", self.path, self.authority);
        let fixed: String = once.iter().map(|line| format!("{line}\r\n")).collect();
        Ok(if often.is_empty() {
            vec![format!("{head}{fixed}\r\n").into_bytes()]
        } else {
            often.iter().map(|line| format!("{head}{fixed}{line}\r\n\r\n").into_bytes()).collect()
        })
    }
}

fn number<T: FromStr>(value: &str) -> io::Result<T> {
    value.parse().map_err(|_| io::Error::other(format!("{value} is not a number that fits here")))
}

fn seconds(value: &str) -> io::Result<Duration> {
    Duration::try_from_secs_f64(number(value)?).map_err(io::Error::other)
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> io::Result<Option<Plan>> {
        Plan::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments() {
        let plan =
            parsed("http https://localhost:8443/a?b=c --rate 250.5 --seconds 0.5 --new").unwrap().unwrap();
        assert!(plan.secure && plan.new);
        assert_eq!((plan.authority.as_str(), plan.path.as_str()), ("localhost:8443", "/a?b=c"));
        assert_eq!(plan.length, Duration::from_millis(500));
        assert!(parsed("--help").unwrap().is_none());
        for wrong in
            ["", "ftp", "http", "http http://a/ --rate 0", "http http://a/ --rate x", "http http://a/ --x 1"]
        {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_that_come_often_are_taken_in_turn() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Authorization: a\nX-Once: 1\n\nauthorization: b\n").unwrap();
        let line = format!("http http://h:1/ --rate 1 --headers {}", file.path().display());
        let requests = parsed(&line).unwrap().unwrap().requests().unwrap();
        let texts: Vec<_> = requests.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
        assert_eq!(
            texts,
            [
                "GET / HTTP/1.1\r\nHost: h:1\r\nX-Once: 1\r\nAuthorization: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: h:1\r\nX-Once: 1\r\nauthorization: b\r\n\r\n"
            ]
        );
    }
}
