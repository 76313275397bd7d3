//! Any order in which the pieces of heads come, at any times, and the client falls silent or goes, and the process leaves: a
//! head is waited for just as long as it may take, whatever came before, and not a millisecond longer.
//!
//! The input is a script: a byte says how long nothing happens, a byte what happens then. The clock is tokio's, which stands
//! still while anybody has something to do.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tollgate::listen::Limits;
use tollgate::listen::connection::{Connection, Facts, LAST_CHANCE};
use tollgate::listen::framing::{Flaw, check_begun, end, parse};
use tollgate::listen::http1::Session;

const HEADER_TIME: Duration = Duration::from_millis(2000);
const KEEPALIVE: Duration = Duration::from_millis(5000);
/// Empty lines that may stand in front of a head.
const EMPTY_LINES: usize = 4;
/// The wheel of timers has teeth of a millisecond.
const TOOTH: Duration = Duration::from_millis(2);
/// What is said; more is in the script itself.
const PIECES: [&[u8]; 12] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"X: y\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b"G",
    b"ET / HTTP/1.1",
    b"Content-Length: 5\r\n",
    b" ",
    b"\r\n\r\n",
];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    // Sockets are looked at before every task, so that the clock cannot go on over what was sent.
    Builder::new_current_thread().enable_all().start_paused(true).event_interval(1).build().unwrap()
});

#[derive(Debug, Clone, Copy)]
enum Act<'a> {
    Say(&'a [u8]),
    Leave,
    Go,
}

/// What becomes of the wait for a head, and when.
#[derive(Debug, PartialEq, Eq)]
struct End {
    found: Option<Result<(), Flaw>>,
    at: Duration,
}

fuzz_target!(|bytes: &[u8]| {
    let acts = script(bytes);
    let limits = Limits { header_time: HEADER_TIME, keepalive: KEEPALIVE, ..Limits::default() };
    // Who comes in the very moment in which the time is over may be heard or not.
    let Some(expected) = expect(&acts, &limits) else { return };
    let found = RUNTIME.block_on(play(&acts, &limits));
    assert_eq!(found.found, expected.found, "{acts:?}: at {:?} and not at {:?}", found.at, expected.at);
    let off = found.at.abs_diff(expected.at);
    assert!(off <= TOOTH, "{acts:?}: {found:?}, but at {:?}", expected.at);
});

/// What happens, and when: never two things at once.
fn script(mut bytes: &[u8]) -> Vec<(Duration, Act<'_>)> {
    let (mut acts, mut now) = (Vec::new(), Duration::ZERO);
    while let [wait, act, rest @ ..] = bytes {
        bytes = rest;
        // Most waits are short, some as long as the limits.
        let wait = u64::from(*wait);
        now += Duration::from_millis(if wait < 128 { 5 + wait } else { (wait - 127) * 47 });
        let act = match usize::from(*act) {
            250.. => Act::Go,
            240..250 => Act::Leave,
            act @ 128..240 => {
                let (said, rest) = bytes.split_at((act - 127).min(bytes.len()));
                bytes = rest;
                Act::Say(said)
            }
            act => Act::Say(PIECES[act % PIECES.len()]),
        };
        acts.push((now, act));
    }
    acts
}

/// What must become of it; `None` when that is a matter of chance.
fn expect(acts: &[(Duration, Act<'_>)], limits: &Limits) -> Option<End> {
    let (mut there, mut seen, mut empty_lines) = (Vec::new(), 0, 0);
    let (mut leaves, mut leaving) = (false, false);
    // Since when nothing is asked, and when what has begun must be whole.
    let (mut since, mut deadline) = (Duration::ZERO, None);
    for (at, act) in acts {
        let due = due(since, deadline, leaving);
        if at.abs_diff(due) <= TOOTH {
            return None;
        }
        if due < *at {
            break;
        }
        match act {
            Act::Go => return Some(End { found: None, at: *at }),
            Act::Leave => leaves = true,
            Act::Say(said) => {
                there.extend_from_slice(said);
                while there.starts_with(b"\r\n") {
                    there.drain(..2);
                    (seen, deadline, since) = (0, None, *at);
                    empty_lines += 1;
                }
                let found = match read(&there, seen, limits) {
                    _ if empty_lines > EMPTY_LINES => Some(Err(Flaw::EmptyLines)),
                    found => found,
                };
                if found.is_some() {
                    return Some(End { found, at: *at });
                }
                seen = there.len();
                if seen > 0 {
                    deadline = deadline.or(Some(*at + HEADER_TIME));
                }
            }
        }
        if leaves && !leaving && deadline.is_none() {
            (leaving, since) = (true, *at);
        }
    }
    let found = deadline.is_some().then_some(Err(Flaw::Slow));
    Some(End { found, at: due(since, deadline, leaving) })
}

fn due(since: Duration, deadline: Option<Duration>, leaving: bool) -> Duration {
    deadline.unwrap_or(since + if leaving { LAST_CHANCE } else { KEEPALIVE })
}

/// What is found in what has come, of which a part was looked at before.
fn read(there: &[u8], seen: usize, limits: &Limits) -> Option<Result<(), Flaw>> {
    if seen == 0 || end(there, seen).is_some() {
        match parse(&bytes::Bytes::copy_from_slice(there), limits) {
            Ok(Some(_)) => return Some(Ok(())),
            Ok(None) => {}
            Err(flaw) => return Some(Err(flaw)),
        }
    }
    check_begun(there, limits).err().map(Err)
}

/// What becomes of it.
async fn play(acts: &[(Duration, Act<'_>)], limits: &Limits) -> End {
    let (server, client) = UnixStream::pair().unwrap();
    let facts = Facts { listener: 0, peer: None, local: None, secure: false, tls: None, trusted: false };
    let mut session = Session::new(Box::new(Connection::new(server, facts, KEEPALIVE, None)));
    let (stop, mut stopping) = watch::channel(false);
    let began = Instant::now();
    let acting = async {
        let mut client = Some(client);
        for (at, act) in acts {
            sleep_until(began + *at).await;
            match (act, &client) {
                (Act::Say(said), Some(client)) => assert_eq!(client.try_write(said).unwrap_or(said.len()), said.len()),
                (Act::Leave, _) => drop(stop.send_replace(true)),
                (Act::Go, _) => client = None,
                (Act::Say(_), None) => {}
            }
            // Until it has come.
            for _ in 0..4 {
                yield_now().await;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        found = session.await_head(limits, &mut stopping) => End { found, at: began.elapsed() },
        () = acting => unreachable!("it never ends"),
    }
}
