use super::super::conversation::{Event, Fault, Framing, Part};
use super::body::Decoder;
use super::head::{framing, take_response, write_request};
use super::*;
use crate::exchange::{RequestHead, ResponseHead};
use crate::upstream::Offer;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(10);

fn parse(text: &[u8]) -> Result<Option<ResponseHead>, Fault> {
    take_response(&mut BytesMut::from(text))
}

fn request(method: &str, target: &str) -> RequestHead {
    http::Request::builder().method(method).uri(target).body(()).unwrap().into_parts().0
}

#[test]
fn a_head_is_found_wherever_it_is_cut() {
    let text =
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nx-empty:\r\n\r\nhi";
    let whole = text.len() - 2;
    for end in 0..whole {
        assert!(matches!(parse(&text[..end]), Ok(None)), "cut at {end}");
    }
    let mut input = BytesMut::from(&text[..]);
    let head = take_response(&mut input).unwrap().unwrap();
    assert_eq!((head.status, head.version, &input[..]), (StatusCode::OK, Version::HTTP_11, &b"hi"[..]));
    assert_eq!(
        (head.headers[CONTENT_LENGTH].as_bytes(), head.headers["x-empty"].as_bytes()),
        (&b"2"[..], &b""[..])
    );
    let cookies: Vec<_> = head.headers.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(cookies, [b"a=1", b"b=2"]);
}

#[test]
fn a_malformed_head_is_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
        "HTTP/1.1 200 OK\r\nname: value\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nname: nul\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nname: bare\rcr\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: nameless\r\n\r\n",
        "HTTP/1.1 200 OK\r\nna me: value\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nname: value\r\n\r\n",
        "HTTP/1.1 200 OK\r\nname: value\n\r\n",
        "HTTP/1.1 200 OK\r\nname: value\r\n\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "<html>no head at all, as HTTP/0.9 would have it</html>\r\n\r\n",
    ] {
        assert!(matches!(parse(text.as_bytes()), Err(Fault::Invalid(_))), "{text:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(head::MAX_HEAD));
    assert!(matches!(parse(endless.as_bytes()), Err(Fault::Invalid(_))));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1000));
    assert!(matches!(parse(many.as_bytes()), Err(Fault::Invalid(_))));
}

fn framed(method: &Method, text: &str) -> Result<(String, bool, bool), Fault> {
    let mut head = parse(format!("{text}\r\n\r\n").as_bytes())?.unwrap();
    let found = framing(&mut head, method)?;
    Ok((format!("{:?}", found.body), found.keep, head.headers.contains_key(CONTENT_LENGTH)))
}

#[test]
fn the_length_of_a_body_is_told_as_the_standard_says() {
    let chunked = "Chunked(Size)".to_owned();
    for (text, body, keep) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5", "Length(5)", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0", "Done", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked", &chunked, true),
        ("HTTP/1.0 200 OK\r\ncontent-length: 5", "Length(5)", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: Keep-Alive", "Length(5)", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close", "Length(5)", false),
        ("HTTP/1.1 200 OK", "UntilClose", false),
        ("HTTP/1.1 204 None\r\ncontent-length: 5", "Done", true),
        ("HTTP/1.1 304 Same\r\ntransfer-encoding: chunked", "Done", true),
    ] {
        let found = framed(&Method::GET, text).unwrap();
        assert_eq!((found.0.as_str(), found.1), (body, keep), "{text:?}");
        assert!(!(found.2 && text.contains(" 204 ")), "an answer without a body has no length: {text:?}");
        assert_eq!(framed(&Method::HEAD, text).unwrap().0, "Done", "{text:?}");
    }
}

#[test]
fn an_ambiguous_length_is_refused() {
    for fields in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5, 5",
        "content-length: 5, 6",
        "content-length: 5,",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "content-length: -1",
        "content-length: +5",
        "content-length: 0x5",
        "content-length: 5 5",
        "content-length:",
        "content-length: 18446744073709551616",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding:",
    ] {
        let found = framed(&Method::GET, &format!("HTTP/1.1 200 OK\r\n{fields}"));
        assert!(matches!(found, Err(Fault::Invalid(_))), "{fields:?}: {found:?}");
    }
    let old = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked";
    assert!(matches!(framed(&Method::GET, old), Err(Fault::Invalid(_))));
}

/// What a body holds, and what is behind it.
type Unchunked = (Vec<u8>, Vec<u8>);

/// Feeds a chunked body piece by piece.
fn unchunk(pieces: &[&[u8]]) -> Result<Option<Unchunked>, Fault> {
    let (mut decoder, mut input, mut body) = (Decoder::chunked(), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        while let Some(found) = decoder.take(&mut input)? {
            body.extend_from_slice(&found);
        }
    }
    let _trailers = decoder.take_trailers();
    Ok(decoder.is_done().then(|| (body, input.to_vec())))
}

#[test]
fn chunks_are_joined_wherever_they_are_cut() {
    let text = b"5\r\nhello\r\n00A;name=\"v;\";x\r\n, my world\r\n1 \t;e\r\n!\r\n0;last\r\nx-sum: 1\r\nx: 2\r\n\r\nnext";
    let whole = (b"hello, my world!".to_vec(), b"next".to_vec());
    for cut in 0..text.len() - 4 {
        assert_eq!(unchunk(&[&text[..cut], &text[cut..]]).unwrap().as_ref(), Some(&whole), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(unchunk(&bytes[..bytes.len() - 4]).unwrap().unwrap().0, whole.0);
    for end in 0..text.len() - 4 {
        assert!(unchunk(&[&text[..end]]).unwrap().is_none(), "cut at {end}");
    }
}

#[test]
fn trailers_are_kept_but_for_what_is_no_field() {
    let text = b"0\r\nx-sum: 1\r\nno field\r\nbad name: 2\r\nX-Sum:  2 \r\n\r\n";
    let (mut decoder, mut input) = (Decoder::chunked(), BytesMut::from(&text[..]));
    assert!(decoder.take(&mut input).unwrap().is_none() && !decoder.is_done());
    let trailers = decoder.take_trailers().unwrap();
    let sums: Vec<_> = trailers.get_all("x-sum").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!((sums, trailers.len()), (vec![&b"1"[..], b"2"], 2));
    assert!(decoder.is_done() && input.is_empty());
}

#[tokio::test]
async fn an_end_that_is_an_error_ends_no_answer() {
    let (mut connection, mut wire) = pair().await;
    connection.begin(&request("GET", "/"), Framing::Ended);
    assert!(matches!(next(&mut connection).await, Ok(Event::Sent)));
    wire.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the").await.unwrap();
    socket2::SockRef::from(&wire).set_linger(Some(Duration::ZERO)).unwrap();
    drop(wire);
    assert_eq!(answer(&mut connection).await.unwrap_err(), Fault::Closed);
}

#[test]
fn malformed_chunks_are_refused() {
    let long = format!("5;{}", "x".repeat(5000));
    let many = format!("0\r\n{}", "x: y\r\n".repeat(4000));
    for text in [
        "\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5 x\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello",
        "0\r\nx: y\n\r\n",
        &long,
        &many,
    ] {
        assert!(unchunk(&[text.as_bytes()]).is_err(), "{text:?}");
    }
    assert!(unchunk(&[b"ffffffffffffffff\r\nhello"]).unwrap().is_none(), "as long as can be told");
}

#[test]
fn a_request_is_written_in_origin_form() {
    for (target, written) in
        [("/a?b=c", "/a?b=c"), ("http://h.test/a", "/a"), ("http://h.test", "/"), ("http://h.test?q", "/?q")]
    {
        let mut head = request("GET", target);
        head.headers.insert("x-a", HeaderValue::from_bytes(b"\xe9").unwrap());
        let mut out = Vec::new();
        write_request(&head, &mut out);
        let mut expected = format!("GET {written} HTTP/1.1\r\nx-a: ").into_bytes();
        expected.extend_from_slice(b"\xe9\r\n\r\n");
        assert_eq!(out, expected, "{target}");
    }
}

/// A pool and the target that its connections lead to.
async fn target(keep: Duration) -> (Arc<Pool>, TcpListener) {
    (Pool::new(keep), TcpListener::bind("127.0.0.1:0").await.unwrap())
}

async fn connect(listener: &TcpListener) -> (Connection, TcpStream) {
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Connection::new(socket.into()), listener.accept().await.unwrap().0)
}

async fn pair() -> (Connection, TcpStream) {
    let (_, listener) = target(DEADLINE).await;
    connect(&listener).await
}

async fn next(connection: &mut Connection) -> Result<Event, Fault> {
    tokio::time::timeout(DEADLINE, poll_fn(|cx| connection.poll(cx))).await.expect("something happens")
}

/// Reads the whole answer: heads, body.
async fn answer(connection: &mut Connection) -> Result<(Vec<ResponseHead>, Vec<u8>), Fault> {
    let (mut heads, mut body) = (Vec::new(), Vec::new());
    loop {
        match next(connection).await? {
            Event::Sent => {}
            Event::Switched => return Ok((heads, body)),
            Event::Part(Part::Head(head, end)) => {
                heads.push(head);
                if end {
                    return Ok((heads, body));
                }
            }
            Event::Part(Part::Body(piece, end)) => {
                body.extend_from_slice(&piece);
                if end {
                    return Ok((heads, body));
                }
            }
            Event::Part(Part::Trailers(_)) => return Ok((heads, body)),
        }
    }
}

/// What becomes of a request that is answered so, and whether the connection can be used again.
async fn asked(method: &str, text: &str, close: bool) -> (Result<(Vec<ResponseHead>, Vec<u8>), Fault>, bool) {
    let (mut connection, mut wire) = pair().await;
    connection.begin(&request(method, "/"), Framing::Ended);
    assert!(matches!(next(&mut connection).await, Ok(Event::Sent)));
    // What is not read would make a reset of the end.
    wire.read_exact(&mut vec![0; method.len() + " / HTTP/1.1\r\n\r\n".len()]).await.unwrap();
    wire.write_all(text.as_bytes()).await.unwrap();
    let held = (!close).then_some(wire);
    let found = answer(&mut connection).await;
    drop(held);
    (found, connection.rest())
}

#[tokio::test]
async fn answers_end_where_they_say() {
    for (method, text, close, body, again) in [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", false, "hi", true),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            false,
            "hi",
            true,
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", false, "", true),
        ("GET", "HTTP/1.1 304 Same\r\ncontent-length: 2\r\n\r\n", false, "", true),
        ("GET", "HTTP/1.1 200 OK\r\n\r\nto the end", true, "to the end", false),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi", false, "hi", false),
        // What comes behind an answer belongs to nobody.
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", false, "hi", false),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", false, "", false),
    ] {
        let (found, reused) = asked(method, text, close).await;
        assert_eq!((found.unwrap().1.as_slice(), reused), (body.as_bytes(), again), "{method} {text:?}");
    }
}

#[tokio::test]
async fn answers_that_do_not_end_are_faults() {
    for text in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
    ] {
        assert_eq!(asked("GET", text, true).await.0.unwrap_err(), Fault::Closed, "{text:?}");
    }
    let (found, reused) = asked("GET", "HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", false).await;
    assert!(matches!(found, Err(Fault::Invalid(_))) && !reused);
}

#[tokio::test]
async fn a_protocol_changes_only_to_what_was_offered() {
    let grant = |fields: &str| format!("HTTP/1.1 101 Switching\r\n{fields}\r\n");
    let granted = grant("upgrade: WebSocket\r\nproof: 1\r\n");
    for (offered, text, switched) in [
        (Some("websocket"), &granted, true),
        (Some("chat"), &granted, false),
        (None, &granted, false),
        (Some("websocket"), &grant("proof: 1\r\n"), false),
        (Some("websocket"), &grant("upgrade: websocket\r\n"), false),
        (Some("websocket"), &grant("upgrade: websocket\r\nproof: 2\r\n"), false),
        (Some("websocket"), &grant("upgrade: websocket\r\nproof: 1\r\nproof: 1\r\n"), false),
        (Some("websocket"), &granted.replace("HTTP/1.1", "HTTP/1.0"), false),
        (Some("websocket"), &granted.replace("101", "204"), false),
    ] {
        let (mut connection, mut wire) = pair().await;
        connection.begin(&request("GET", "/"), Framing::Ended);
        if let Some(protocol) = offered {
            let proof = (HeaderName::from_static("proof"), HeaderValue::from_static("1"));
            connection.offer(Arc::new(Offer { protocol, proof }));
        }
        assert!(matches!(next(&mut connection).await, Ok(Event::Sent)));
        wire.write_all(format!("HTTP/1.1 103 Early\r\n\r\n{text}more").as_bytes()).await.unwrap();
        let answered = answer(&mut connection).await.is_ok();
        assert_eq!(connection.is_switched(), switched, "{offered:?} {text:?}");
        assert!(!connection.rest(), "it carries no other request");
        let left = connection.switched().map(|left| (left.head.status.as_u16(), left.read.to_vec()));
        assert_eq!(left, switched.then(|| (101, b"more".to_vec())));
        assert_eq!(answered, switched || text.contains("204"));
    }
}

#[tokio::test]
async fn interim_answers_come_first() {
    let text =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 204 None\r\n\r\n";
    let (heads, body) = asked("GET", text, false).await.0.unwrap();
    let status: Vec<u16> = heads.iter().map(|head| head.status.as_u16()).collect();
    assert_eq!((status.as_slice(), body.as_slice()), (&[100, 103, 204][..], &b""[..]));
}

#[tokio::test]
async fn interim_answers_come_to_an_end() {
    for (count, good) in [(16, true), (17, false)] {
        let text = "HTTP/1.1 103 Early\r\n\r\n".repeat(count) + "HTTP/1.1 204 None\r\n\r\n";
        let (found, reused) = asked("GET", &text, false).await;
        assert_eq!((found.is_ok(), reused), (good, good), "{count}");
    }
}

#[tokio::test]
async fn a_body_leaves_with_its_head() {
    for (framing, wanted) in [
        (Framing::Length(5), "POST / HTTP/1.1\r\n\r\nhello"),
        (Framing::Chunked, "POST / HTTP/1.1\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let (mut connection, mut wire) = pair().await;
        connection.begin(&request("POST", "/"), framing);
        connection.send(Bytes::from_static(b"hello"), true).unwrap();
        assert!(matches!(next(&mut connection).await, Ok(Event::Sent)));
        let mut read = vec![0; 200];
        let count = wire.read(&mut read).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&read[..count]), wanted);
    }
}

#[tokio::test]
async fn chunks_are_written_as_they_are_read() {
    let (mut connection, mut wire) = pair().await;
    connection.begin(&request("POST", "/"), Framing::Chunked);
    let (first, second) = (vec![b'a'; 0x1234], vec![b'b'; 100_000]);
    for (piece, end) in [(&first[..], false), (&b""[..], false), (&second[..], false), (&b""[..], true)] {
        connection.send(Bytes::copy_from_slice(piece), end).unwrap();
        while connection.is_sending() {
            let sent = next(&mut connection);
            let mut sink = vec![0; 1 << 16];
            tokio::select! {
                event = sent => assert!(matches!(event, Ok(Event::Sent))),
                () = async { loop { if wire.peek(&mut sink[..1]).await.is_ok() { tokio::task::yield_now().await } } } => {}
            }
        }
    }
    wire.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    answer(&mut connection).await.unwrap();
    drop(connection);
    let mut all = Vec::new();
    wire.read_to_end(&mut all).await.unwrap();
    let (body, rest) = unchunk(&[all.strip_prefix(b"POST / HTTP/1.1\r\n\r\n").unwrap()]).unwrap().unwrap();
    assert!(body == [first, second].concat() && rest.is_empty());
}

#[tokio::test]
async fn a_body_of_another_length_than_declared_is_not_sent() {
    for (pieces, framing) in [
        (&[("hello!", true)][..], Framing::Length(5)),
        (&[("hell", true)][..], Framing::Length(5)),
        (&[("hello", false), ("!", true)][..], Framing::Length(5)),
        (&[("hello", true)][..], Framing::Ended),
    ] {
        let (mut connection, _wire) = pair().await;
        connection.begin(&request("POST", "/"), framing);
        let sent: Result<Vec<()>, Fault> = pieces
            .iter()
            .map(|(piece, end)| connection.send(Bytes::from_static(piece.as_bytes()), *end))
            .collect();
        assert_eq!(sent.unwrap_err(), Fault::Length, "{pieces:?}");
        assert!(!connection.rest());
    }
}

#[tokio::test]
async fn an_early_answer_ends_a_request_only_with_its_connection() {
    for (fields, over) in [("content-length: 0", false), ("content-length: 0\r\nconnection: close", true)] {
        let (mut connection, mut wire) = pair().await;
        connection.begin(&request("POST", "/"), Framing::Length(10));
        connection.send(Bytes::from_static(b"hello"), false).unwrap();
        wire.write_all(format!("HTTP/1.1 413 Large\r\n{fields}\r\n\r\n").as_bytes()).await.unwrap();
        answer(&mut connection).await.unwrap();
        assert_eq!((connection.is_answered(), connection.is_over()), (true, over));
        assert!(!connection.rest(), "half a request was sent");
    }
}

async fn kept(pool: &Arc<Pool>, listener: &TcpListener) -> TcpStream {
    let (mut connection, mut wire) = connect(listener).await;
    connection.begin(&request("GET", "/"), Framing::Ended);
    wire.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    while connection.is_sending() {
        next(&mut connection).await.unwrap();
    }
    answer(&mut connection).await.unwrap();
    pool.put(connection);
    wire
}

#[tokio::test]
async fn connections_are_taken_again() {
    let (pool, listener) = target(DEADLINE).await;
    assert!(pool.take().is_none());
    let _wires = (kept(&pool, &listener).await, kept(&pool, &listener).await);
    assert_eq!(pool.idle(), 2);
    let connection = pool.take().unwrap();
    assert!(connection.is_used() && !connection.is_heard());
    assert!(pool.take().is_some() && pool.take().is_none());
}

#[tokio::test]
async fn connections_that_ended_are_not() {
    let (pool, listener) = target(DEADLINE).await;
    let (closed, mut chatty, open) =
        (kept(&pool, &listener).await, kept(&pool, &listener).await, kept(&pool, &listener).await);
    drop(closed);
    chatty.write_all(b"HTTP/1.1 408 Bye\r\n\r\n").await.unwrap();
    tokio::time::timeout(DEADLINE, async {
        while pool.idle() > 1 {
            tokio::task::yield_now().await;
            pool.sweep();
        }
    })
    .await
    .expect("a sweep finds what has ended");
    assert!(pool.take().is_some() && pool.take().is_none());
    drop(open);
}

#[tokio::test]
async fn connections_grow_old() {
    let (pool, listener) = target(Duration::from_millis(1)).await;
    let _wire = kept(&pool, &listener).await;
    tokio::time::timeout(DEADLINE, async {
        while pool.sweep() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it grows old");
    let (pool, listener) = target(Duration::ZERO).await;
    let _wire = kept(&pool, &listener).await;
    assert_eq!(pool.idle(), 0, "nothing is kept for no time");
}

#[test]
fn fields_are_told_apart_by_more_than_their_map() {
    // A head without fields is a head.
    assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap().headers == HeaderMap::new());
}
