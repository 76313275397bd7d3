use super::super::conversation::{Event, Fault, Framing, Outgoing, Part};
use super::*;
use crate::exchange::RequestHead;
use http::HeaderMap;
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(20);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The target's end, frame by frame (RFC 9113 section 4.1).
struct Wire(TcpStream);

/// Kind, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

impl Wire {
    async fn send(&mut self, (kind, flags, stream, payload): (u8, u8, u32, &[u8])) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((kind, flags, u32::from_be_bytes(stream), payload))
    }

    /// The next frame of a kind; the connection must not end before.
    async fn next(&mut self, kind: u8) -> Frame {
        let wanted = async {
            loop {
                let frame = self.frame().await.expect("a frame");
                if frame.0 == kind {
                    return frame;
                }
            }
        };
        tokio::time::timeout(DEADLINE, wanted).await.expect("a frame in time")
    }

    /// `:status: 200` from the static table (RFC 7541 appendix A), and a body.
    async fn answer(&mut self, stream: u32, body: &[u8]) {
        self.send((HEADERS, END_HEADERS, stream, &[0x88])).await;
        self.send((DATA, END_STREAM, stream, body)).await;
    }
}

/// A pool, its first stream, and the target's end of the connection with these settings said.
async fn pair(keep: Duration, settings: &[u8]) -> (Arc<Pool>, Stream, Wire) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let pool = Pool::new(keep, false);
    let stream = Pool::add(&pool, socket.into()).await.unwrap();
    let mut wire = Wire(listener.accept().await.unwrap().0);
    let mut preface = [0; 24];
    wire.0.read_exact(&mut preface).await.unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    wire.send((SETTINGS, 0, 0, settings)).await;
    let (_, _, _, ours) = wire.next(SETTINGS).await;
    assert!(ours.chunks(6).any(|one| one == [0, 2, 0, 0, 0, 0]), "nothing is to be pushed");
    wire.send((SETTINGS, ACK, 0, &[])).await;
    assert_eq!(wire.next(SETTINGS).await.1, ACK);
    (pool, stream, wire)
}

fn asked(method: &str, framing: Framing) -> Outgoing {
    let request = http::Request::builder().method(method).uri("/a?b=c").header("host", "a.test:8080");
    let (head, ()): (RequestHead, ()) = request.body(()).unwrap().into_parts();
    Outgoing { head, framing, trailers: true }
}

async fn next(stream: &mut Stream) -> Result<Event, Fault> {
    tokio::time::timeout(DEADLINE, poll_fn(|cx| stream.poll(cx))).await.expect("something happens")
}

/// Status, body and trailers of the whole answer.
async fn answer(stream: &mut Stream) -> Result<(u16, Vec<u8>, HeaderMap), Fault> {
    let (mut status, mut body) = (0, Vec::new());
    loop {
        let Event::Part(part) = next(stream).await? else { continue };
        match part {
            Part::Head(head, end) => {
                status = head.status.as_u16();
                if end {
                    return Ok((status, body, HeaderMap::new()));
                }
            }
            Part::Body(piece, end) => {
                body.extend_from_slice(&piece);
                if end {
                    return Ok((status, body, HeaderMap::new()));
                }
            }
            Part::Trailers(trailers) => return Ok((status, body, trailers)),
        }
    }
}

#[tokio::test]
async fn a_request_names_its_host_beside_its_path() {
    let request = super::stream::compose(asked("GET", Framing::Chunked).head, true, true).unwrap();
    assert_eq!(
        (request.uri().to_string().as_str(), request.version()),
        ("https://a.test:8080/a?b=c", http::Version::HTTP_2)
    );
    assert_eq!(request.headers().iter().count(), 1);
    assert_eq!(request.headers()["te"], "trailers");
    for host in ["a b", "", "a/b"] {
        let mut head = asked("GET", Framing::Ended).head;
        head.headers.insert("host", host.parse().unwrap());
        assert!(super::stream::compose(head, false, false).is_none(), "{host:?}");
    }
}

#[tokio::test]
async fn streams_share_a_connection_up_to_what_the_target_takes() {
    // SETTINGS_MAX_CONCURRENT_STREAMS: 2
    let (pool, mut first, mut wire) = pair(DEADLINE, &[0, 3, 0, 0, 0, 2]).await;
    let mut second = pool.take().unwrap();
    assert!(pool.take().is_none(), "two are enough");
    assert!(!first.is_used() && second.is_used());
    first.begin(asked("GET", Framing::Ended));
    second.begin(asked("GET", Framing::Ended));
    wire.next(HEADERS).await;
    wire.next(HEADERS).await;
    wire.answer(3, b"second").await;
    wire.answer(1, b"first").await;
    assert_eq!(answer(&mut first).await.unwrap().1, b"first");
    assert_eq!(answer(&mut second).await.unwrap().1, b"second");
    drop(first);
    assert!(pool.take().is_some() && pool.len() == 1);
}

#[tokio::test]
async fn a_connection_that_leaves_says_what_it_has_not_looked_at() {
    let (pool, mut first, mut wire) = pair(DEADLINE, &[]).await;
    let mut second = pool.take().unwrap();
    first.begin(asked("POST", Framing::Ended));
    second.begin(asked("POST", Framing::Ended));
    wire.next(HEADERS).await;
    wire.next(HEADERS).await;
    let last_and_reason = [0, 0, 0, 1, 0, 0, 0, 0];
    wire.send((GOAWAY, 0, 0, &last_and_reason)).await;
    assert_eq!(answer(&mut second).await.unwrap_err(), Fault::Closed);
    assert!(second.is_untouched() && second.is_left_behind() && !second.is_heard());
    assert!(pool.take().is_none(), "it gets no more");
    wire.answer(1, b"still").await;
    assert_eq!(answer(&mut first).await.unwrap().1, b"still");
    assert!(!first.is_untouched());
}

#[tokio::test]
async fn an_end_without_a_word_leaves_it_open_what_was_looked_at() {
    let (_pool, mut stream, mut wire) = pair(DEADLINE, &[]).await;
    stream.begin(asked("POST", Framing::Ended));
    wire.next(HEADERS).await;
    drop(wire);
    assert_eq!(answer(&mut stream).await.unwrap_err(), Fault::Closed);
    assert!(!stream.is_untouched());
}

#[tokio::test]
async fn a_reset_says_by_its_reason_what_it_means() {
    for (begun, reason, untouched, whole) in [
        (false, 7, true, false),
        (false, 8, false, false),
        (true, 7, false, false),
        (true, 2, false, false),
        // No more of the request is wanted; what was said is all.
        (true, 0, false, true),
    ] {
        let (_pool, mut stream, mut wire) = pair(DEADLINE, &[]).await;
        stream.begin(asked("POST", Framing::Chunked));
        wire.next(HEADERS).await;
        if begun {
            wire.send((HEADERS, END_HEADERS, 1, &[0x88])).await;
            assert!(matches!(next(&mut stream).await, Ok(Event::Part(Part::Head(_, false)))));
        }
        wire.send((RST_STREAM, 0, 1, &[0, 0, 0, reason])).await;
        let found = answer(&mut stream).await;
        assert_eq!((found.is_ok(), stream.is_untouched()), (whole, untouched), "{begun} {reason}: {found:?}");
    }
}

#[tokio::test]
async fn a_body_is_sent_as_far_as_the_target_has_room() {
    // SETTINGS_INITIAL_WINDOW_SIZE: 4
    let (_pool, mut stream, mut wire) = pair(DEADLINE, &[0, 4, 0, 0, 0, 4]).await;
    stream.begin(asked("POST", Framing::Length(6)));
    stream.send("hello!".into(), true).unwrap();
    let sent = tokio::spawn(async move {
        let event = next(&mut stream).await;
        (event, stream)
    });
    wire.next(HEADERS).await;
    assert_eq!(wire.next(DATA).await, (DATA, 0, 1, b"hell".to_vec()));
    wire.send((8, 0, 1, &[0, 0, 0, 9])).await;
    assert_eq!(wire.next(DATA).await, (DATA, END_STREAM, 1, b"o!".to_vec()));
    let (event, stream) = sent.await.unwrap();
    assert!(matches!(event, Ok(Event::Sent)) && !stream.is_sending());
}

#[tokio::test]
async fn a_body_of_another_length_than_declared_is_not_sent() {
    for (piece, framing) in
        [("hello!", Framing::Length(5)), ("hell", Framing::Length(5)), ("x", Framing::Ended)]
    {
        let (_pool, mut stream, _wire) = pair(DEADLINE, &[]).await;
        stream.begin(asked("POST", framing));
        assert_eq!(stream.send(piece.into(), true), Err(Fault::Length));
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_cancelled() {
    let (_pool, mut stream, mut wire) = pair(DEADLINE, &[]).await;
    stream.begin(asked("POST", Framing::Chunked));
    wire.next(HEADERS).await;
    drop(stream);
    assert_eq!(wire.next(RST_STREAM).await.3, [0, 0, 0, 8]);
}

#[tokio::test]
async fn connections_that_nobody_needs_are_closed() {
    let (pool, mut stream, mut wire) = pair(Duration::ZERO, &[]).await;
    stream.begin(asked("GET", Framing::Ended));
    wire.next(HEADERS).await;
    pool.retire();
    assert_eq!(pool.len(), 1, "it is in use");
    wire.answer(1, b"x").await;
    answer(&mut stream).await.unwrap();
    drop(stream);
    pool.retire();
    assert!(pool.is_empty());
    wire.next(GOAWAY).await;
    assert!(tokio::time::timeout(DEADLINE, wire.frame()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_pool_takes_its_connections_along() {
    let (pool, stream, mut wire) = pair(DEADLINE, &[]).await;
    drop((pool, stream));
    wire.next(GOAWAY).await;
}

#[tokio::test]
async fn a_connection_in_doubt_gets_nothing_until_it_answers() {
    let (pool, stream, mut wire) = pair(DEADLINE, &[]).await;
    stream.doubt();
    assert!(pool.take().is_none());
    let (_, _, _, ping) = wire.next(PING).await;
    wire.send((PING, ACK, 0, &ping)).await;
    let again = async {
        while pool.take().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("it lives");
}

#[tokio::test]
async fn a_connection_that_does_not_answer_is_given_up() {
    let (pool, mut stream, mut wire) = pair(DEADLINE, &[]).await;
    stream.begin(asked("GET", Framing::Ended));
    wire.next(HEADERS).await;
    stream.doubt();
    wire.next(PING).await;
    tokio::time::pause();
    assert_eq!(answer(&mut stream).await.unwrap_err(), Fault::Closed);
    assert!(pool.is_empty());
}
