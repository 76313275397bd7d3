//! A small HTTP/1.1 server to put behind tollgate: the upstream of the quick start, of the examples and of your own
//! experiments. It answers any path with the request as it arrived, so that what a gateway changed can be seen.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const HELP: &str = "\
A small HTTP/1.1 upstream for trying a gateway.

Usage: demo-upstream [--listen ADDRESS]        default 127.0.0.1:3000

  /orders/{id}    an order, as JSON, with the request as it arrived
  /slow?ms=N      answers after N milliseconds (at most 60,000)
  /status/N       answers with status N
  /bytes/N        N bytes (at most 1 GiB)
  /stream         ten server-sent events, one a second
  anything else   the request as it arrived, as JSON
";
const MAX_HEAD: u64 = 64 * 1024;
const MAX_BYTES: u64 = 1 << 30;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With nowhere to complain, the exit code still tells.
            writeln!(io::stderr(), "demo-upstream: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

async fn run() -> io::Result<()> {
    let mut address = "127.0.0.1:3000".to_owned();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--listen", Some(value)) => address = value,
            ("--help" | "-h", _) => return io::stdout().write_all(HELP.as_bytes()),
            _ => return Err(bad("usage: demo-upstream [--listen ADDRESS]")),
        }
    }
    let listener = TcpListener::bind(&address).await?;
    writeln!(io::stdout(), "demo upstream on {}", listener.local_addr()?)?;
    loop {
        // A refused or exhausted accept is the client's loss, not a reason to end.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(async move { serve(stream).await.unwrap_or_default() });
    }
}

/// Serves one connection until the client closes it, asks for its end, or breaks the protocol.
async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_head(&mut stream).await? {
        if request.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue")) {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body_bytes = discard_body(&mut stream, &request).await?;
        answer(stream.get_mut(), &request).await?;
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

/// A request head, and the length of the body once that has been read.
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    keep_alive: bool,
    body_bytes: u64,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// Reads one head (RFC 9112 section 2.1); `None` when the client has closed between two requests.
async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut head = stream.take(MAX_HEAD);
    let mut line = String::new();
    if head.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(bad("not a request line"));
    };
    let mut request = Request { method, target, headers: Vec::new(), keep_alive: true, body_bytes: 0 };
    loop {
        line.clear();
        if !head.read_line(&mut line).await.is_ok_and(|_| line.ends_with('\n')) {
            return Err(bad("the head is cut off or too long"));
        }
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header without a colon"))?;
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let connection = request.header("connection").unwrap_or_default().to_ascii_lowercase();
    request.keep_alive = version == "HTTP/1.1" && !connection.contains("close");
    Ok(Some(request))
}

/// Reads a body of either framing (RFC 9112 section 6) and returns its length.
async fn discard_body(stream: &mut BufReader<TcpStream>, request: &Request) -> io::Result<u64> {
    if request.header("transfer-encoding").is_none() {
        let length = request.header("content-length").map_or(Ok(0), str::parse);
        return discard(stream, length.map_err(|_| bad("content-length"))?).await;
    }
    let (mut total, mut line) = (0, String::new());
    loop {
        line.clear();
        (&mut *stream).take(MAX_HEAD).read_line(&mut line).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| bad("chunk size"))?;
        if size == 0 {
            break;
        }
        total += discard(stream, size).await?;
        discard(stream, 2).await?;
    }
    while (&mut *stream).take(MAX_HEAD).read_line(&mut line).await? > 2 {}
    Ok(total)
}

async fn discard(stream: &mut (impl AsyncRead + Unpin), length: u64) -> io::Result<u64> {
    match tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await? {
        read if read == length => Ok(read),
        _ => Err(bad("the body is cut off")),
    }
}

async fn answer(stream: &mut TcpStream, request: &Request) -> io::Result<()> {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let (first, rest) =
        path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    match (first, rest, rest.parse::<u64>()) {
        ("bytes", _, Ok(count @ ..=MAX_BYTES)) => send_bytes(stream, request, count).await,
        ("orders", id, _) if !id.is_empty() => {
            let order = json!({ "id": id, "status": "shipped", "request": echo(request, path, query) });
            send_json(stream, request, 200, &order).await
        }
        ("slow", "", _) => {
            let ms = query.split('&').find_map(|pair| pair.strip_prefix("ms=")?.parse::<u64>().ok());
            tokio::time::sleep(Duration::from_millis(ms.unwrap_or(1000).min(60_000))).await;
            send_json(stream, request, 200, &echo(request, path, query)).await
        }
        ("status", _, Ok(code @ 200..600)) => {
            send_json(stream, request, code, &json!({ "status": code })).await
        }
        ("stream", "", _) => send_events(stream, request).await,
        _ => send_json(stream, request, 200, &echo(request, path, query)).await,
    }
}

/// The request as it arrived; a header sent twice is joined by a comma.
fn echo(request: &Request, path: &str, query: &str) -> Value {
    let mut headers = Map::new();
    for (name, value) in &request.headers {
        let before = headers.remove(&name.to_ascii_lowercase());
        let value =
            before.as_ref().and_then(Value::as_str).map_or(value.clone(), |b| format!("{b}, {value}"));
        headers.insert(name.to_ascii_lowercase(), value.into());
    }
    let Request { method, body_bytes, .. } = request;
    json!({ "method": method, "path": path, "query": query, "headers": headers, "body_bytes": body_bytes })
}

async fn send_json(stream: &mut TcpStream, request: &Request, status: u64, body: &Value) -> io::Result<()> {
    let body = if matches!(status, 204 | 304) { String::new() } else { format!("{body:#}\n") };
    let mut message = head(request, status, "application/json", Some(body.len() as u64));
    if request.method != "HEAD" {
        message.push_str(&body);
    }
    stream.write_all(message.as_bytes()).await
}

async fn send_bytes(stream: &mut TcpStream, request: &Request, count: u64) -> io::Result<()> {
    stream.write_all(head(request, 200, "application/octet-stream", Some(count)).as_bytes()).await?;
    let count = if request.method == "HEAD" { 0 } else { count };
    tokio::io::copy(&mut tokio::io::repeat(b'x').take(count), stream).await.map(drop)
}

/// Ten server-sent events in chunked framing.
async fn send_events(stream: &mut TcpStream, request: &Request) -> io::Result<()> {
    stream.write_all(head(request, 200, "text/event-stream", None).as_bytes()).await?;
    if request.method == "HEAD" {
        return Ok(());
    }
    for tick in 1..=10 {
        let event = format!("data: {{\"tick\": {tick}}}\n\n");
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stream.write_all(b"0\r\n\r\n").await
}

/// A response head; without a length the body is chunked.
fn head(request: &Request, status: u64, content_type: &str, length: Option<u64>) -> String {
    let framing = match length {
        _ if status == 204 => String::new(),
        Some(length) => format!("content-length: {length}\r\n"),
        None => "transfer-encoding: chunked\r\n".to_owned(),
    };
    let connection = if request.keep_alive { "" } else { "connection: close\r\n" };
    format!(
        "HTTP/1.1 {status} Demo\r\nserver: demo\r\ncontent-type: {content_type}\r\n{framing}{connection}\r\n"
    )
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
