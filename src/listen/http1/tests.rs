use super::*;
use crate::exchange::ResponseHead;
use crate::listen::connection::Facts;
use http::{StatusCode, Version};
use std::task::Waker;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

const SOON: Duration = Duration::from_secs(10);

fn pair() -> (Session, UnixStream) {
    let (server, client) = UnixStream::pair().unwrap();
    let facts = Facts { listener: 0, peer: None, local: None, secure: false, tls: None, trusted: false };
    (Session::new(Box::new(Connection::new(server, facts, SOON, None))), client)
}

/// Reads until a request has begun.
async fn begin(session: &mut Session) -> Result<(), Flaw> {
    let mut seen = 0;
    while !session.begin(seen, &Limits::default())? {
        seen = session.ahead().len();
        assert_ne!(poll_fn(|cx| session.poll_fill(cx)).await.unwrap(), 0, "the client has gone");
    }
    Ok(())
}

async fn body(session: &mut Session) -> Vec<u8> {
    let mut all = Vec::new();
    while !session.is_body_done()
        && let Some(piece) = poll_fn(|cx| session.poll_body(cx, true)).await.unwrap()
    {
        all.extend_from_slice(&piece);
    }
    all
}

fn head(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHead {
    let (mut head, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
    for (name, value) in fields {
        head.headers.append(*name, value.parse().unwrap());
    }
    head
}

/// All that has come, without the date, which is now.
async fn heard(client: &mut UnixStream) -> String {
    client.readable().await.unwrap();
    let mut all = vec![0; 1 << 20];
    let count = client.try_read(&mut all).unwrap();
    let text = String::from_utf8(all[..count].to_vec()).unwrap();
    let lines =
        text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ") || line.contains("1994"));
    lines.collect()
}

#[tokio::test]
async fn requests_follow_each_other_with_their_bodies() {
    let (mut session, mut client) = pair();
    let long = "x".repeat(200_000);
    let sent = [
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
            .to_owned(),
        format!("POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        format!(
            "POST /5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
            long.len()
        ),
        "GET /6 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ]
    .concat();
    for piece in [1, 7, 4096, usize::MAX] {
        let sent = sent.clone();
        let (mut reading, writing) = client.into_split();
        let writer = tokio::spawn(async move {
            let mut writing = writing;
            for part in sent.as_bytes().chunks(piece.min(sent.len())) {
                writing.write_all(part).await.unwrap();
                if piece < 4096 && part.len() == piece {
                    tokio::task::yield_now().await;
                }
            }
            writing
        });
        for (number, wanted) in ["", "hello", "hello", &long, &long, ""].iter().enumerate() {
            begin(&mut session).await.unwrap();
            assert_eq!(session.request().uri.path(), format!("/{}", number + 1));
            assert_eq!(session.is_body_empty(), wanted.is_empty());
            assert!(body(&mut session).await == wanted.as_bytes(), "{number} in pieces of {piece}");
            session.answer(head(204, &[]), true);
            assert!(session.finish().await);
        }
        let mut answers = [0; 1 << 16];
        assert!(reading.read(&mut answers).await.unwrap() > 0);
        client = reading.reunite(writer.await.unwrap()).unwrap();
    }
    assert!(session.ahead().is_empty() && session.output.is_empty());
}

#[tokio::test]
async fn answers_are_framed_as_their_heads_say() {
    for (request, status, fields, pieces, wanted) in [
        (
            "GET / HTTP/1.1",
            200,
            &[("content-length", "5")][..],
            &["hel", "lo"][..],
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
        ),
        (
            "GET / HTTP/1.1",
            200,
            &[("transfer-encoding", "chunked")],
            &["hello, world, ", "", "!"],
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\nE\r\nhello, world, \r\n1\r\n!\r\n0\r\n\r\n",
        ),
        ("GET / HTTP/1.0", 200, &[], &["hello"], "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"),
        (
            "GET / HTTP/1.1",
            404,
            &[("content-length", "2"), ("X-Two", "1"), ("x-two", "2")],
            &["no, more"],
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nx-two: 1\r\nx-two: 2\r\nConnection: keep-alive\r\n\r\nno",
        ),
        (
            "HEAD / HTTP/1.1",
            200,
            &[("content-length", "5")],
            &["hello"],
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1",
            304,
            &[("content-length", "5")],
            &["hello"],
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1",
            299,
            &[("connection", "x"), ("content-length", "0")],
            &[""],
            "HTTP/1.1 299 \r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1",
            200,
            &[("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("content-length", "1")],
            &["x"],
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx",
        ),
        (
            "GET / HTTP/1.1",
            200,
            &[("date", "1994"), ("content-length", "1")],
            &["x"],
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx",
        ),
    ] {
        let (mut session, mut client) = pair();
        client.write_all(format!("{request}\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        begin(&mut session).await.unwrap();
        session.answer(head(status, fields), false);
        for (number, piece) in pieces.iter().enumerate() {
            session.push(Bytes::from_static(piece.as_bytes()), number + 1 == pieces.len()).unwrap();
        }
        let kept = wanted.contains("keep-alive");
        assert_eq!(session.finish().await, kept, "{wanted:?}");
        assert_eq!(heard(&mut client).await, wanted);
    }
}

#[tokio::test]
async fn an_answer_that_is_too_short_ends_the_connection() {
    let (mut session, mut client) = pair();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    begin(&mut session).await.unwrap();
    session.answer(head(200, &[("content-length", "5")]), false);
    assert!(session.may_gather());
    assert!(session.push(Bytes::from_static(b"hell"), true).is_err());
    session.send_at_once().await;
    assert!(heard(&mut client).await.ends_with("hell"));
    assert_eq!(session.body_sent(), 4);
    assert!(!session.finish().await);
}

#[tokio::test]
async fn nothing_that_was_not_sent_counts_as_begun() {
    let (mut session, mut client) = pair();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    begin(&mut session).await.unwrap();
    session.interim(&head(103, &[("link", "x")]));
    session.send().await.unwrap();
    assert!(session.answered().is_none());
    session.answer(head(200, &[("content-length", "5")]), false);
    session.take_back();
    assert!(session.answered().is_none());
    session.answer(head(502, &[("content-length", "0")]), true);
    assert!(session.finish().await);
    assert_eq!(
        heard(&mut client).await,
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
    );
}

#[tokio::test]
async fn an_early_answer_ends_the_connection_unless_the_rest_is_read() {
    for drains in [false, true] {
        let (mut session, mut client) = pair();
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
        begin(&mut session).await.unwrap();
        if drains {
            session.drain();
        }
        session.answer(head(401, &[("content-length", "0")]), true);
        session.send().await.unwrap();
        assert_eq!(heard(&mut client).await.contains("keep-alive"), drains);
        client.write_all(b"lloGET /2").await.unwrap();
        assert_eq!(session.finish().await, drains);
        if drains {
            assert_eq!(session.ahead(), b"GET /2");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_and_one_that_asks_on_is_not_lost() {
    let (mut session, mut client) = pair();
    client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    begin(&mut session).await.unwrap();
    let mut nobody = Context::from_waker(Waker::noop());
    assert!(session.poll_body(&mut nobody, false).is_pending());
    client.write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let idle = poll_fn(|cx| session.poll_body(cx, false));
    assert!(tokio::time::timeout(Duration::from_millis(50), idle).await.is_err());
    session.answer(head(204, &[]), true);
    assert!(session.finish().await);
    begin(&mut session).await.unwrap();
    assert_eq!(session.request().uri.path(), "/2");
    drop(client);
    assert!(poll_fn(|cx| session.poll_body(cx, false)).await.is_err());
    assert!(!session.finish().await);
}

#[tokio::test]
async fn what_is_no_chunk_is_told_as_what_it_is() {
    let (mut session, mut client) = pair();
    let begun = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(&[&begun[..], b"5\r\nhel"].concat()).await.unwrap();
    begin(&mut session).await.unwrap();
    assert_eq!(poll_fn(|cx| session.poll_body(cx, true)).await.unwrap().unwrap(), "hel");
    client.write_all(b"loX").await.unwrap();
    let error = poll_fn(|cx| session.poll_body(cx, true)).await.unwrap_err();
    assert_eq!(error.get_ref().and_then(|flaw| flaw.downcast_ref::<Flaw>()), Some(&Flaw::ChunkEnd));
    let (mut session, mut client) = pair();
    client.write_all(&[&begun[..], b"x\r\n"].concat()).await.unwrap();
    assert_eq!(begin(&mut session).await, Err(Flaw::ChunkSize), "with the head");
}

#[tokio::test]
async fn large_and_small_pieces_arrive_in_their_order() {
    let (mut session, mut client) = pair();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    begin(&mut session).await.unwrap();
    assert_eq!(session.request().version, Version::HTTP_11);
    session.answer(head(StatusCode::OK.as_u16(), &[("transfer-encoding", "chunked")]), false);
    let mut wanted = Vec::new();
    let writer = tokio::spawn(async move {
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        all
    });
    for (number, size) in
        [10_000, 3, 70_000, 5000, 1, 4096, 300_000, 20_000].repeat(8).into_iter().enumerate()
    {
        let piece: Vec<u8> = (0..size).map(|at| (at * 31 + number) as u8).collect();
        wanted.extend_from_slice(&[format!("{size:X}\r\n").as_bytes(), &piece, b"\r\n"].concat());
        session.push(piece.into(), number == 63).unwrap();
        if number % 5 == 0 {
            session.send().await.unwrap();
        }
    }
    session.close();
    wanted.extend_from_slice(b"0\r\n\r\n");
    assert!(!session.finish().await);
    drop(session);
    let all = writer.await.unwrap();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(all[end..] == wanted, "{} bytes, not {}", all.len() - end, wanted.len());
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 640, "{}", size_of::<Session>());
}
