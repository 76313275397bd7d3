use super::*;
use crate::cache::purge::{How, What};
use crate::cache::store::Store;
use crate::cache::{Ask, Facts, Joined, Key, Look};
use bytes::Bytes;
use http::Response;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

const MEMORY: usize = 64 << 20;
const CHILD: &str = "TOLLGATE_TEST_CACHE_CHILD";

fn key(text: &str) -> Key {
    Key { text: text.as_bytes().into() }
}

fn store(path: &Path, size: u64) -> Arc<Store> {
    let store = Store::new(MEMORY);
    store.set_disk(Some(Settings { path: path.to_owned(), size }));
    store
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} did not come true");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn ready(store: &Store) {
    until("ready", || store.stats().disk.unwrap().state == "ready");
}

fn ask(store: &Arc<Store>, name: &str) -> Ask {
    match store.join(&key(name)) {
        Joined::Ask(ask) => ask,
        Joined::Follow(follow) => panic!("{follow:?}"),
    }
}

fn body(name: &str, len: usize) -> Bytes {
    name.bytes().cycle().take(len).collect::<Vec<_>>().into()
}

fn put(store: &Arc<Store>, name: &str, len: usize) {
    let ask = ask(store, name);
    let (coming, filler) = store.body(1 << 30);
    let facts = Facts { received: now(), lifetime: 3_600_000, ..Facts::default() };
    let mut stored =
        Stored::new(Response::new(()).into_parts().0, coming, facts, &format!("https://a.b/{name}"));
    stored.tags = Box::new([name.chars().take(1).collect::<String>().into()]);
    let mut fill = ask.answered(stored, filler);
    fill.push(body(name, len));
    fill.finish();
}

async fn bytes(stored: &Stored<Body>) -> Result<Vec<u8>, crate::cache::Broken> {
    let mut reader = stored.body.reader(0, u64::MAX).unwrap();
    let mut all = Vec::new();
    while let Some(bytes) = reader.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}

/// What is on disk, with the length it has there.
async fn load(store: &Store, name: &str) -> Option<Arc<Stored<Body>>> {
    store.load(&key(name), &HeaderMap::new()).await
}

fn in_memory(store: &Store, name: &str) -> bool {
    matches!(store.look_up(&key(name), &HeaderMap::new()), Look::Hit(_))
}

/// How many files there are, and their bytes; those that leave meanwhile do not count.
fn files(path: &Path) -> (usize, u64) {
    let folders = std::fs::read_dir(path.join("objects")).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let lengths = files.filter_map(|file| Some(file.unwrap().metadata().ok()?.len()));
    lengths.fold((0, 0), |(count, bytes), len| (count + 1, bytes + len))
}

#[tokio::test]
async fn what_is_stored_outlives_the_process_and_comes_back_into_memory() {
    let folder = tempfile::tempdir().unwrap();
    let before = store(folder.path(), 1 << 30);
    ready(&before);
    put(&before, "short", 1000);
    put(&before, "empty", 0);
    put(&before, "middle", 300_000);
    assert!(before.settle());
    before.release_disk();
    let after = store(folder.path(), 1 << 30);
    ready(&after);
    assert!(!in_memory(&after, "short"));
    for (name, len) in [("short", 1000), ("empty", 0), ("middle", 300_000)] {
        let stored = load(&after, name).await.unwrap();
        assert_eq!(stored.body.complete_len(), Some(len as u64));
        assert!(bytes(&stored).await.unwrap() == body(name, len), "{name}");
        assert_eq!(*stored.url, *format!("https://a.b/{name}"));
        assert!(in_memory(&after, name));
    }
    assert!(load(&after, "none").await.is_none());
    let disk = after.stats().disk.unwrap();
    assert_eq!((disk.tier.objects, disk.read), (3, 3));
}

#[tokio::test]
async fn long_bodies_are_read_as_they_are_sent_and_damage_breaks_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 1 << 30);
    ready(&store);
    let len = 5_000_000;
    put(&store, "long", len);
    assert!(store.settle());
    let stored = load(&store, "long").await.unwrap();
    assert_eq!((stored.body.complete_len(), stored.body.whole_len()), (Some(len as u64), None));
    let mut part = stored.body.reader(4_000_000, 4_000_010).unwrap();
    let (mut rest, mut all) = (stored.body.reader(0, u64::MAX).unwrap(), Vec::new());
    while let Some(bytes) = rest.next().await {
        all.extend_from_slice(&bytes.unwrap());
    }
    assert!(all == body("long", len));
    assert_eq!(part.next().await.unwrap().unwrap(), body("long", len).slice(4_000_000..4_000_010));

    let path = walk(folder.path());
    let mut file = std::fs::read(&path).unwrap();
    let at = file.len() - 1_000_000;
    file[at] ^= 1;
    std::fs::write(&path, file).unwrap();
    let stored = load(&store, "long").await.unwrap();
    assert_eq!(bytes(&stored).await, Err(crate::cache::Broken::Cut));
    assert!(load(&store, "long").await.is_none(), "it is let go");
    assert!(store.settle());
    assert_eq!((files(folder.path()).0, store.stats().disk.unwrap().read_errors), (0, 1));
}

/// The only file.
fn walk(path: &Path) -> PathBuf {
    let folders = std::fs::read_dir(path.join("objects")).unwrap().map(|folder| folder.unwrap().path());
    let mut files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    file
}

#[tokio::test]
async fn a_file_of_another_key_is_never_given() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 1 << 30);
    ready(&store);
    put(&store, "mine", 1000);
    assert!(store.settle());
    let path = walk(folder.path());
    let id = u64::from_str_radix(path.file_name().unwrap().to_str().unwrap(), 16).unwrap();
    let other =
        Stored::new(Response::new(()).into_parts().0, Body::whole(body("other", 10)), Facts::default(), "");
    let mut file = format::encode(id, b"other", &other).unwrap();
    file.extend_from_slice(&body("other", 10));
    std::fs::write(&path, file).unwrap();
    assert!(load(&store, "mine").await.is_none());
    assert_eq!(store.stats().disk.unwrap().tier.objects, 0);
}

#[test]
fn the_disk_is_bounded_and_shrinks() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 4 << 20);
    ready(&store);
    for number in 0..300_usize {
        put(&store, &format!("n{number}"), number * 997 % 100_000);
        assert!(files(folder.path()).1 <= 4 << 20);
    }
    put(&store, "too large", 600_000);
    assert!(store.settle());
    let disk = store.stats().disk.unwrap();
    assert!(disk.tier.bytes <= 4 << 20 && disk.tier.evicted > 0, "{disk:?}");
    assert_eq!((disk.tier.objects as usize, disk.written), (files(folder.path()).0, 300));
    store.set_disk(Some(Settings { path: folder.path().to_owned(), size: 1 << 20 }));
    assert!(store.settle());
    assert!(files(folder.path()).1 <= 1 << 20);
    let other = tempfile::tempdir().unwrap();
    store.set_disk(Some(Settings { path: other.path().to_owned(), size: 1 << 20 }));
    ready(&store);
    put(&store, "elsewhere", 10);
    assert!(store.settle());
    assert_eq!(files(other.path()).0, 1);
    store.set_disk(None);
    assert!(store.stats().disk.is_none());
}

#[tokio::test]
async fn purges_reach_the_disk_and_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let before = store(folder.path(), 1 << 30);
    ready(&before);
    ["a1", "a2", "b1", "b2", "c1", "d1"].into_iter().for_each(|name| put(&before, name, 100));
    let purge = |what, how| before.purge(Purge { what, how });
    // Not written yet, or just being written.
    assert_eq!(purge(What::Tag("a".into()), How::Remove), 2);
    assert!(before.settle());
    assert_eq!(files(folder.path()).0, 4);
    assert_eq!(purge(What::Prefix("https://a.b/b".into()), How::Invalidate), 2);
    assert_eq!(purge(What::Url("https://a.b/c1".into()), How::Remove), 1);
    assert!(before.settle());
    before.release_disk();

    let after = store(folder.path(), 1 << 30);
    ready(&after);
    for (name, is_invalid) in
        [("a1", None), ("a2", None), ("b1", Some(true)), ("c1", None), ("d1", Some(false))]
    {
        assert_eq!(load(&after, name).await.map(|stored| stored.is_invalid()), is_invalid, "{name}");
    }
    assert_eq!(after.purge(Purge { what: What::All, how: How::Remove }), 3);
    assert!(after.settle());
    assert_eq!(files(folder.path()).0, 0);
}

#[tokio::test]
async fn a_purge_that_comes_before_the_folder_is_read_meets_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let before = store(folder.path(), 1 << 30);
    ready(&before);
    ["a1", "b1", "c1"].into_iter().for_each(|name| put(&before, name, 100));
    assert!(before.settle());
    let after = store(folder.path(), 1 << 30);
    until("waiting", || after.stats().disk.unwrap().state == "waiting");
    after.purge(Purge { what: What::Tag("a".into()), how: How::Remove });
    after.purge(Purge { what: What::Tag("b".into()), how: How::Expire });
    put(&after, "x1", 100);
    assert_eq!(after.stats().disk.unwrap().written, 0);
    before.release_disk();
    ready(&after);
    assert!(load(&after, "a1").await.is_none());
    assert!(load(&after, "b1").await.unwrap().is_expired());
    assert!(!load(&after, "c1").await.unwrap().is_expired());
    after.release_disk();
    before.take_back_disk();
    ready(&before);
    assert_eq!(before.stats().disk.unwrap().tier.objects, 2);
}

#[tokio::test]
async fn of_two_files_of_one_key_the_newer_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let written = files::Files::open(root).unwrap();
    for (id, received, text) in
        [(1, now() - 2000, "old"), (2, now() - 1000, "new"), (3, now() - 3000, "older")]
    {
        let facts = Facts { received, lifetime: 60_000, ..Facts::default() };
        let stored =
            Stored::new(Response::new(()).into_parts().0, Body::whole(body(text, 9)), facts, "https://a.b/");
        written.write(id, b"k", &stored).unwrap();
    }
    let dead = Facts { received: 1, ..Facts::default() };
    let dead = Stored::new(Response::new(()).into_parts().0, Body::whole(Bytes::new()), dead, "https://a.b/");
    written.write(4, b"dead", &dead).unwrap();
    drop(written);
    let store = store(root, 1 << 30);
    ready(&store);
    assert_eq!(bytes(&load(&store, "k").await.unwrap()).await.unwrap(), body("new", 9));
    assert!(store.settle());
    assert_eq!(files(root).0, 1);
}

#[tokio::test]
async fn a_failing_disk_costs_nothing_but_itself_and_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 1 << 30);
    ready(&store);
    put(&store, "before", 100);
    assert!(store.settle());
    std::fs::remove_dir(folder.path().join("new")).unwrap();
    put(&store, "during", 100);
    assert!(store.settle());
    assert_eq!(store.stats().disk.unwrap().state, "failing");
    put(&store, "skipped", 100);
    assert!(in_memory(&store, "during") && in_memory(&store, "skipped"));
    assert!(load(&store, "before").await.is_some(), "what is there is still read");
    let disk = store.stats().disk.unwrap();
    assert_eq!((disk.write_errors, disk.skipped, disk.written), (1, 1, 1));
    std::fs::create_dir(folder.path().join("new")).unwrap();
    until("written again", || {
        put(&store, "after", 100);
        store.settle() && store.stats().disk.unwrap().state == "ready"
    });
    assert!(load(&store, "after").await.is_some());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "in the way").unwrap();
    let store = store(&path, 1 << 30);
    until("failing", || store.stats().disk.unwrap().state == "failing");
    put(&store, "a", 100);
    assert!(in_memory(&store, "a"));
    std::fs::remove_file(&path).unwrap();
    ready(&store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_want_the_same_read_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 1 << 30);
    ready(&store);
    put(&store, "a", 10_000);
    assert!(store.settle());
    let mut all = Vec::new();
    for _ in 0..500 {
        let store = store.clone();
        all.push(tokio::spawn(async move { load(&store, "a").await.unwrap() }));
    }
    let mut stored = Vec::new();
    for one in all {
        stored.push(one.await.unwrap());
    }
    assert!(stored.iter().all(|one| Arc::ptr_eq(one, &stored[0])));
    assert_eq!(store.stats().disk.unwrap().read, 1);
}

/// Runs only as a child of the next test: writes and purges until it is killed, and says what it has purged.
#[test]
#[ignore = "runs as a child of another test"]
fn child_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = store(Path::new(&path), 8 << 20);
    ready(&store);
    let round = now();
    for number in 0_usize.. {
        put(&store, &format!("k{round}-{}", number % 500), number * 7919 % 200_000);
        if number % 10 == 9 {
            let name = format!("k{round}-{}", number % 500);
            store.purge(Purge { what: What::Url(format!("https://a.b/{name}").into()), how: How::Remove });
            assert!(store.settle());
            println!("purged {name}");
            // What is purged is written no more.
            if number >= 499 {
                break;
            }
        }
    }
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_nothing_torn_and_nothing_purged() {
    let folder = tempfile::tempdir().unwrap();
    let mut found = 0;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "cache::disk::tests::child_writes_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut purged = Vec::new();
        // Killed at some moment after it has said so much.
        while purged.len() < 1 + (round as usize * 7) % 30 {
            let line = lines.next().expect("the child ended by itself");
            purged.extend(line.split_once("purged ").map(|(_, name)| name.to_owned()));
        }
        std::thread::park_timeout(Duration::from_micros(round * 713 % 5_000));
        child.kill().unwrap();
        purged.extend(lines.filter_map(|line| Some(line.split_once("purged ")?.1.to_owned())));
        child.wait().unwrap();

        let store = store(folder.path(), 8 << 20);
        ready(&store);
        let disk = store.stats().disk.unwrap();
        assert_eq!(disk.tier.objects as usize, files(folder.path()).0, "what is there is known");
        assert!(purged.first().is_some_and(|name| name.starts_with('k')));
        let series = purged[0].split_once('-').unwrap().0.to_owned();
        for number in 0..500 {
            let name = format!("{series}-{number}");
            let Some(stored) = load(&store, &name).await else { continue };
            assert!(!purged.contains(&name), "{name} was purged");
            let bytes = bytes(&stored).await.unwrap();
            assert_eq!(bytes.len(), number * 7919 % 200_000, "{name}");
            assert!(bytes == body(&name, bytes.len()), "{name}");
            found += 1;
        }
        assert_eq!(store.stats().disk.unwrap().read_errors, 0);
        store.release_disk();
    }
    assert!(found > 100, "only {found} were found");
}
