use super::*;
use std::time::Duration;

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(1 << 30))
}

fn bytes(len: usize, seed: usize) -> Bytes {
    (0..len).map(|at| (at.wrapping_mul(31) + seed) as u8).collect::<Vec<_>>().into()
}

async fn all(mut reader: Reader) -> Result<Vec<u8>, Broken> {
    let mut all = Vec::new();
    while let Some(bytes) = reader.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}

fn read(body: &Body) -> Vec<u8> {
    let mut reader = body.reader(0, u64::MAX).unwrap();
    let mut all = Vec::new();
    while let Taken::Bytes(bytes) = reader.take() {
        all.extend_from_slice(&bytes);
    }
    all
}

#[test]
fn a_whole_body_is_read_in_parts_without_copying() {
    let bytes = bytes(1000, 0);
    let body = Body::whole(bytes.clone());
    assert_eq!(body.complete_len(), Some(1000));
    for (from, to) in [(0, u64::MAX), (0, 1), (999, 1000), (10, 20), (1000, 2000), (5, 5), (3000, 4000)] {
        let mut reader = body.reader(from, to).unwrap();
        let expected =
            bytes.slice((from as usize).min(1000)..(to.min(1000) as usize).max(from.min(1000) as usize));
        match reader.take() {
            Taken::Bytes(part) => {
                assert_eq!(part, expected);
                assert_eq!(part.as_ptr(), bytes[from as usize..].as_ptr(), "no copy");
            }
            taken => assert_eq!((taken, expected.len()), (Taken::End, 0), "{from}..{to}"),
        }
        assert_eq!(reader.take(), Taken::End);
    }
    assert_eq!(Body::whole(Bytes::new()).reader(0, 1).unwrap().take(), Taken::End);
}

#[test]
fn what_came_in_pieces_is_the_same_whole_and_in_every_part() {
    for size in [1, 7, 1000, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
        let budget = budget();
        let (body, mut filler) = Body::coming(u64::MAX, budget.clone());
        let (mut sent, early) = (Vec::new(), body.reader(0, u64::MAX).unwrap());
        for number in 0..100 {
            let piece = bytes(size, number);
            sent.extend_from_slice(&piece);
            filler.push(piece);
            if number % 33 == 0 {
                assert_eq!(read(&body), sent, "while it comes");
            }
        }
        assert_eq!((body.complete_len(), budget.held()), (None, sent.len()));
        assert!(filler.finish(true));
        assert_eq!((body.complete_len(), budget.held()), (Some(sent.len() as u64), 0));
        assert_eq!(read(&body), sent);
        let mut early = early;
        let mut seen = Vec::new();
        while let Taken::Bytes(bytes) = early.take() {
            seen.extend_from_slice(&bytes);
        }
        assert_eq!(seen, sent, "a reader from the beginning");
        for (from, to) in [(0, 1), (sent.len() / 3, sent.len() / 2), (sent.len() - 1, sent.len() + 5)] {
            let mut reader = body.reader(from as u64, to as u64).unwrap();
            let mut part = Vec::new();
            while let Taken::Bytes(bytes) = reader.take() {
                part.extend_from_slice(&bytes);
            }
            assert_eq!(part, sent[from..to.min(sent.len())]);
        }
    }
}

#[test]
fn a_stored_body_holds_on_to_no_larger_buffer() {
    let buffer = bytes(1 << 20, 0);
    let (body, mut filler) = Body::coming(u64::MAX, budget());
    filler.push(buffer.slice(10..20));
    filler.finish(true);
    let Taken::Bytes(piece) = body.reader(0, 10).unwrap().take() else { panic!("nothing") };
    assert_ne!(piece.as_ptr(), buffer[10..].as_ptr());
    assert!(buffer.is_unique());
}

#[tokio::test]
async fn five_hundred_read_while_it_comes_and_each_gets_all() {
    let (body, mut filler) = Body::coming(u64::MAX, budget());
    let mut readers = Vec::new();
    for number in 0..500_u64 {
        let reader = body.reader(number, u64::MAX).unwrap();
        readers.push(tokio::spawn(async move { (number, all(reader).await) }));
    }
    let mut sent = Vec::new();
    for number in 0..200 {
        let piece = bytes(700, number);
        sent.extend_from_slice(&piece);
        filler.push(piece);
        tokio::task::yield_now().await;
    }
    filler.finish(true);
    for reader in readers {
        let (from, got) = reader.await.unwrap();
        assert!(got.unwrap() == sent[from as usize..], "reader from {from}");
    }
}

#[tokio::test]
async fn who_stops_breaks_it_and_nobody_begins_any_more() {
    let (body, mut filler) = Body::coming(u64::MAX, budget());
    let mut reader = body.reader(0, u64::MAX).unwrap();
    filler.push(bytes(10, 0));
    assert_eq!(reader.next().await, Some(Ok(bytes(10, 0))));
    let waiting = tokio::spawn(async move { reader.next().await });
    tokio::task::yield_now().await;
    drop(filler);
    assert_eq!(waiting.await.unwrap(), Some(Err(Broken::Cut)));
    assert!(body.is_broken() && body.complete_len().is_none());
    assert!(body.reader(0, 1).is_none());
    let (body, filler) = Body::coming(u64::MAX, budget());
    assert!(!filler.finish(false));
    assert!(body.is_broken());
}

#[tokio::test]
async fn what_outgrows_its_bound_is_not_kept_but_passes_whole() {
    let budget = budget();
    let (body, mut filler) = Body::coming(1_000_000, budget.clone());
    let mut reader = body.reader(0, u64::MAX).unwrap();
    let (mut got, mut sent) = (0, 0);
    for number in 0..1000 {
        let piece = bytes(16_384, number);
        sent += piece.len();
        filler.push(piece.clone());
        if number % 100 == 99 {
            while let Taken::Bytes(bytes) = reader.take() {
                got += bytes.len();
            }
            assert!(body.0.coming.lock().pieces.is_empty() || filler.is_kept(), "what was read is let go");
        }
    }
    assert!(!filler.is_kept() && body.reader(0, 1).is_none(), "nobody can begin");
    assert!(budget.held() > 0, "readers may still hold what came before");
    assert!(!filler.finish(true));
    assert_eq!(budget.held(), 0);
    assert_eq!((got, sent, reader.next().await), (sent, 16_384_000, None));
    assert_eq!(body.complete_len(), None);
}

#[test]
fn who_is_too_far_behind_is_cut_off_and_the_others_are_not() {
    let (body, mut filler) = Body::coming(0, budget());
    let (mut quick, mut slow) = (body.reader(0, u64::MAX).unwrap(), body.reader(0, u64::MAX).unwrap());
    for number in 0..80 {
        filler.push(bytes(PIECE, number));
        assert_eq!(quick.take(), Taken::Bytes(bytes(PIECE, number)));
        let held: usize = body.0.coming.lock().pieces.iter().map(|piece| piece.bytes.len()).sum();
        assert!(held as u64 <= BEHIND, "{held} bytes are held");
    }
    assert_eq!(slow.take(), Taken::Broken(Broken::Behind));
    assert_eq!(quick.take(), Taken::NotYet);
    drop(slow);
    assert!(filler.body.0.coming.lock().readers.contains(&Place::Free));
    filler.finish(true);
    assert_eq!(quick.take(), Taken::End);
}

#[test]
fn who_was_far_behind_when_it_outgrew_its_bound_is_not_cut_off_for_that() {
    let (body, mut filler) = Body::coming(2 * BEHIND, budget());
    let mut slow = body.reader(0, u64::MAX).unwrap();
    let pieces = 2 * BEHIND as usize / PIECE;
    (0..pieces + 1).for_each(|number| filler.push(bytes(PIECE, number)));
    assert!(!filler.is_kept());
    for number in 0..pieces + 1 {
        assert_eq!(slow.take(), Taken::Bytes(bytes(PIECE, number)));
        filler.push(bytes(PIECE, pieces + 1 + number));
    }
    assert_ne!(slow.take(), Taken::Broken(Broken::Behind));
}

#[tokio::test(start_paused = true)]
async fn the_filler_waits_for_the_fastest_reader_and_stops_when_there_is_none() {
    let (body, mut filler) = Body::coming(0, budget());
    let mut reader = body.reader(0, u64::MAX).unwrap();
    for number in 0..48 {
        filler.push(bytes(PIECE, number));
    }
    assert!(tokio::time::timeout(Duration::from_secs(1), filler.room()).await.is_err(), "3 MiB are unread");
    let reading = tokio::spawn(async move {
        for _ in 0..47 {
            reader.next().await.unwrap().unwrap();
        }
        reader
    });
    assert!(tokio::time::timeout(Duration::from_secs(1), filler.room()).await.unwrap());
    for number in 0..30 {
        filler.push(bytes(PIECE, number));
    }
    let reader = reading.await.unwrap();
    let gone = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(reader);
    });
    assert!(!tokio::time::timeout(Duration::from_secs(1), filler.room()).await.unwrap());
    gone.await.unwrap();
}

#[test]
fn what_the_budget_has_no_room_for_is_not_kept() {
    let budget = Arc::new(Budget::new(100));
    let (_first, mut one) = Body::coming(u64::MAX, budget.clone());
    let (_second, mut two) = Body::coming(u64::MAX, budget.clone());
    one.push(bytes(80, 0));
    two.push(bytes(30, 0));
    assert!(one.is_kept() && !two.is_kept());
    assert_eq!(budget.held(), 80);
    drop(one);
    assert_eq!(budget.held(), 0);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_pieces_and_the_pace_every_reader_gets_its_part(
        pieces in proptest::collection::vec(0_usize..100_000, 0..60),
        (from, to) in (0_u64..2_000_000, 0_u64..4_000_000),
        takes in proptest::collection::vec(0_usize..4, 60),
        most in 0_u64..4_000_000,
    ) {
        let (body, mut filler) = Body::coming(most, budget());
        let mut reader = body.reader(from, to).unwrap();
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for (number, (len, takes)) in pieces.into_iter().zip(takes).enumerate() {
            sent.extend_from_slice(&bytes(len, number));
            filler.push(bytes(len, number));
            for _ in 0..takes {
                if let Taken::Bytes(bytes) = reader.take() { got.extend_from_slice(&bytes) }
            }
        }
        let kept = filler.finish(true);
        proptest::prop_assert_eq!(kept, sent.len() as u64 <= most);
        let end = loop {
            match reader.take() {
                Taken::Bytes(bytes) => got.extend_from_slice(&bytes),
                taken => break taken,
            }
        };
        let from = (from as usize).min(sent.len());
        let expected = &sent[from..(to as usize).clamp(from, sent.len())];
        match end {
            Taken::End => proptest::prop_assert!(got == expected),
            end => {
                proptest::prop_assert_eq!(end, Taken::Broken(Broken::Behind));
                proptest::prop_assert!(!kept && expected.starts_with(&got));
            }
        }
    }
}
