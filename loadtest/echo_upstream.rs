//! The upstream of the load tests that nginx cannot be: it sends back what it is sent, in WebSocket frames and in gRPC calls.
//!
//! `echo-upstream LISTEN` takes both on one address: HTTP/2 with prior knowledge is a gRPC client, whose message comes back
//! with `grpc-status: 0` behind it; anything else must ask for a WebSocket.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const MAX_HEAD: usize = 64 * 1024;
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With nowhere to complain, the exit code still tells.
            writeln!(io::stderr(), "echo-upstream: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

async fn run() -> io::Result<()> {
    let Some(address) = std::env::args().nth(1) else {
        return Err(bad("usage: echo-upstream LISTEN"));
    };
    let listener = TcpListener::bind(&address).await?;
    loop {
        // A refused or exhausted accept is the client's loss, not a reason to end.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(async move { serve(stream).await.unwrap_or_default() });
    }
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0; 3];
    while stream.peek(&mut first).await? < first.len() {
        // Nothing comes in such small parts here; what closes instead is done.
        if stream.peek(&mut first).await? == 0 {
            return Ok(());
        }
    }
    if &first == b"PRI" {
        serve_grpc(stream).await.map_err(io::Error::other)
    } else {
        serve_frames(stream).await
    }
}

async fn serve_grpc(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake(stream)
        .await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        tokio::spawn(async move { answer_call(request, respond).await.unwrap_or_default() });
    }
    Ok(())
}

/// A unary call: head, the message as it came, and trailers that say that all is well.
async fn answer_call(
    request: Request<RecvStream>,
    mut respond: SendResponse<bytes::Bytes>,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        message.extend_from_slice(&part);
    }
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut send = respond.send_response(head, false)?;
    send.send_data(message.freeze(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)
}

async fn serve_frames(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    let key = upgrade_key(&mut stream, &mut buffer).await?;
    let digest =
        ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{SUFFIX}").as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        BASE64_STANDARD.encode(digest)
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        while let Some(length) = echo_frame(&buffer, &mut answer) {
            buffer.advance(length);
        }
        if !answer.is_empty() {
            stream.write_all(&answer).await?;
            answer.clear();
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Reads the head of a request for a WebSocket; its key.
async fn upgrade_key(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<String> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut fields);
        if let httparse::Status::Complete(length) = head.parse(buffer).map_err(io::Error::other)? {
            let key = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("sec-websocket-key"));
            let key = key.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::to_owned);
            buffer.advance(length);
            return key.ok_or_else(|| bad("not a request for a WebSocket"));
        }
        if buffer.len() > MAX_HEAD || stream.read_buf(buffer).await? == 0 {
            return Err(bad("the head is cut off or too long"));
        }
    }
}

/// Appends the answer to the frame at the front (RFC 6455 section 5.2), if it is there in full; returns its length. A
/// client's frame is masked and a server's must not be, so the payload is written anew.
fn echo_frame(buffer: &[u8], answer: &mut Vec<u8>) -> Option<usize> {
    let (&kind, &second) = (buffer.first()?, buffer.get(1)?);
    let (start, length) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*buffer.get(2)?, *buffer.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let mask = buffer.get(start..start + 4)?;
    let payload = buffer.get(start + 4..start.checked_add(length)?.checked_add(4)?)?;
    answer.extend([kind, second & 0x7f]);
    answer.extend_from_slice(buffer.get(2..start)?);
    answer.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Some(start + 4 + length)
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_unmasked() {
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        for cut in 0..hello.len() {
            assert_eq!(echo_frame(&hello[..cut], &mut Vec::new()), None, "{cut}");
        }
        let mut answer = Vec::new();
        assert_eq!(echo_frame(&hello, &mut answer), Some(hello.len()));
        assert_eq!(answer, b"\x81\x05Hello");
    }

    #[test]
    fn long_frames_keep_their_length() {
        let mut frame = vec![0x82, 0xfe, 1, 0, 0, 0, 0, 0];
        frame.extend([7; 256]);
        let mut answer = Vec::new();
        assert_eq!(echo_frame(&frame, &mut answer), Some(frame.len()));
        assert_eq!(answer.len(), 4 + 256);
        let endless = [0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0];
        assert_eq!(echo_frame(&endless, &mut answer), None);
    }
}
