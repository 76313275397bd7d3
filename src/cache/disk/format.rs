//! One stored answer in one file.
//!
//! ```text
//! file      "tgcache1" · length of the head u32 · checksum of the head u64 · head · body      numbers little endian
//! head      id u64 · key · url · status u16 · facts · fields · vary · tags · length of the body u64 · checksums
//! ```
//! There is a checksum (SipHash-1-3) for each 64 KiB of the body, and they are under that of the head: a file that is torn, too
//! short, too long or made of parts of two is noticed before any of it is used.

use crate::cache::{Body, Facts, Stored, Taken};
use crate::exchange::ResponseHead;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

const MAGIC: &[u8; 8] = b"tgcache1";
/// Bytes before the head.
pub(super) const PREFIX: usize = 20;
/// A longer head is damage: what clients may send and upstreams may answer is far less.
const LONGEST_HEAD: usize = 16 << 20;
/// What one checksum of the body is for.
pub(super) const BLOCK: usize = 64 * 1024;

/// What a file says before its body.
pub(super) struct Head {
    /// The number that the file is named by.
    pub id: u64,
    /// The key.
    pub key: Box<[u8]>,
    /// The answer without its body.
    pub stored: Stored<()>,
    /// Where that is, and what it must be.
    pub layout: Layout,
}

/// Where the body is, and what it must be.
pub(super) struct Layout {
    /// Its length.
    pub body: u64,
    /// Where it begins.
    pub begin: u64,
    /// Checksums of its blocks.
    sums: Vec<u64>,
}

impl Layout {
    /// How long the file must be.
    pub fn file_len(&self) -> u64 {
        self.begin + self.body
    }

    /// Whether these bytes are those of the body from a block on.
    pub fn is_right(&self, first: usize, bytes: &[u8]) -> bool {
        let sums = self.sums.get(first..).unwrap_or_default();
        let blocks = bytes.chunks(BLOCK);
        blocks.len() <= sums.len() && blocks.zip(sums).all(|(block, sum)| checksum(block) == *sum)
    }
}

/// What stands before the body of an answer whose body is whole.
pub(super) fn encode(id: u64, key: &[u8], stored: &Stored<Body>) -> Option<Vec<u8>> {
    let body = stored.body.whole_len()?;
    let mut write = Write(Vec::with_capacity(1024));
    write.number(id);
    write.long(key);
    write.long(stored.url.as_bytes());
    write.0.extend_from_slice(&stored.head.status.as_u16().to_le_bytes());
    write.facts(&stored.facts);
    write.count(stored.head.headers.len());
    for (name, value) in &stored.head.headers {
        write.long(name.as_str().as_bytes());
        write.0.push(u8::from(value.is_sensitive()));
        write.long(value.as_bytes());
    }
    write.count(stored.vary.len());
    for (name, value) in &stored.vary {
        write.long(name.as_str().as_bytes());
        write.0.push(u8::from(value.is_some()));
        write.long(value.as_ref().map_or(&[], |value| value.as_bytes()));
    }
    write.count(stored.tags.len());
    stored.tags.iter().for_each(|tag| write.long(tag.as_bytes()));
    write.number(body);
    checksums(&stored.body).into_iter().for_each(|sum| write.number(sum));
    let head = write.0;
    let mut file = Vec::with_capacity(PREFIX + head.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&u32::try_from(head.len()).ok()?.to_le_bytes());
    file.extend_from_slice(&checksum(&head).to_le_bytes());
    file.extend_from_slice(&head);
    Some(file)
}

/// The pieces of a whole body.
pub(super) fn pieces(body: &Body) -> impl Iterator<Item = Bytes> {
    let mut reader = body.reader(0, u64::MAX);
    std::iter::from_fn(move || match reader.as_mut()?.take() {
        Taken::Bytes(bytes) => Some(bytes),
        _ => None,
    })
}

fn checksums(body: &Body) -> Vec<u64> {
    let (mut sums, mut hasher, mut room) = (Vec::new(), hasher(), BLOCK);
    for piece in pieces(body) {
        let mut rest = piece.as_ref();
        while let Some((now, later)) =
            rest.split_at_checked(room.min(rest.len())).filter(|_| !rest.is_empty())
        {
            hasher.write(now);
            room -= now.len();
            if room == 0 {
                sums.push(std::mem::replace(&mut hasher, self::hasher()).finish());
                room = BLOCK;
            }
            rest = later;
        }
    }
    if room < BLOCK {
        sums.push(hasher.finish());
    }
    sums
}

/// Length and checksum of the head, from the first bytes of a file.
pub(super) fn prefix(bytes: &[u8]) -> Option<(usize, u64)> {
    let mut read = Read(bytes);
    (read.take(MAGIC.len())? == MAGIC).then_some(())?;
    let len = usize::try_from(u32::from_le_bytes(read.array()?)).ok()?;
    let sum = u64::from_le_bytes(read.array()?);
    (len <= LONGEST_HEAD).then_some((len, sum))
}

/// The head, if it has this checksum.
pub(super) fn decode(bytes: &[u8], sum: u64) -> Option<Head> {
    (checksum(bytes) == sum).then_some(())?;
    let mut read = Read(bytes);
    let (id, key, url) = (read.number()?, read.long()?.into(), read.text()?.to_owned());
    let status = StatusCode::from_u16(u16::from_le_bytes(read.array()?)).ok()?;
    let facts = read.facts()?;
    let mut stored = Stored::new(response(status, read.fields()?), (), facts, &url);
    stored.vary = read.list(|read| {
        let (name, has_value) = (read.name()?, read.array::<1>()? == [1]);
        let value = read.value()?;
        Some((name, has_value.then_some(value)))
    })?;
    stored.tags = read.list(|read| read.text().map(Box::from))?;
    let body = read.number()?;
    let blocks = usize::try_from(body.div_ceil(BLOCK as u64)).ok()?;
    let sums = (0..blocks).map(|_| read.number()).collect::<Option<_>>()?;
    let begin = (PREFIX + bytes.len()) as u64;
    let layout = Layout { body, begin, sums };
    read.0.is_empty().then_some(Head { id, key, stored, layout })
}

fn response(status: StatusCode, headers: HeaderMap) -> ResponseHead {
    let mut head = Response::new(()).into_parts().0;
    (head.status, head.headers) = (status, headers);
    head
}

fn hasher() -> SipHasher13 {
    // Only against accidents, so the key need not be secret.
    SipHasher13::new_with_keys(0x7467_6361_6368_6531, 0)
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = hasher();
    hasher.write(bytes);
    hasher.finish()
}

struct Write(Vec<u8>);

impl Write {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// All counts and lengths are of things in memory that came over HTTP: far below four thousand million.
    fn count(&mut self, count: usize) {
        self.0.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn long(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn facts(&mut self, facts: &Facts) {
        for number in
            [facts.received, facts.initial_age, facts.lifetime, facts.while_revalidating, facts.on_error]
        {
            self.number(number);
        }
        self.0.extend([u8::from(facts.must_revalidate), u8::from(facts.no_cache)]);
    }
}

struct Read<'a>(&'a [u8]);

impl<'a> Read<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let len = self.count()?;
        self.take(len)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.long()?).ok()
    }

    fn name(&mut self) -> Option<HeaderName> {
        HeaderName::from_bytes(self.long()?).ok()
    }

    fn value(&mut self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.long()?).ok()
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Box<[T]>> {
        let count = self.count()?;
        (0..count).map(|_| one(self)).collect()
    }

    fn fields(&mut self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        for _ in 0..self.count()? {
            let (name, sensitive) = (self.name()?, self.array::<1>()? == [1]);
            let mut value = self.value()?;
            value.set_sensitive(sensitive);
            headers.try_append(name, value).ok()?;
        }
        Some(headers)
    }

    fn facts(&mut self) -> Option<Facts> {
        Some(Facts {
            received: self.number()?,
            initial_age: self.number()?,
            lifetime: self.number()?,
            while_revalidating: self.number()?,
            on_error: self.number()?,
            must_revalidate: self.array::<1>()? == [1],
            no_cache: self.array::<1>()? == [1],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{ACCEPT, ETAG, SET_COOKIE};

    fn stored(len: usize) -> Stored<Body> {
        let mut headers = HeaderMap::new();
        headers.append(ETAG, HeaderValue::from_static("\"1\""));
        headers.append(SET_COOKIE, HeaderValue::from_static("a=1"));
        headers.append(SET_COOKIE, HeaderValue::from_bytes(b"b=\xff").unwrap());
        let facts = Facts { received: 1, initial_age: 2, lifetime: 3, no_cache: true, ..Facts::default() };
        let body = (0..len).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>();
        let head = response(StatusCode::NOT_FOUND, headers);
        let mut stored = Stored::new(head, Body::whole(body.into()), facts, "https://a.b/c?d");
        stored.vary = Box::new([(ACCEPT, Some(HeaderValue::from_static("x"))), (SET_COOKIE, None)]);
        stored.tags = Box::new(["t".into(), "ü".into()]);
        stored
    }

    fn read(file: &[u8]) -> Option<Head> {
        let (len, sum) = prefix(file.get(..PREFIX)?)?;
        let head = decode(file.get(PREFIX..PREFIX + len)?, sum)?;
        let layout = &head.layout;
        (layout.file_len() == file.len() as u64 && layout.is_right(0, file.get(PREFIX + len..)?))
            .then_some(head)
    }

    fn file(len: usize) -> Vec<u8> {
        let stored = stored(len);
        let mut file = encode(7, b"key", &stored).unwrap();
        pieces(&stored.body).for_each(|piece| file.extend_from_slice(&piece));
        file
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let (head, expected) = (read(&file(len)).unwrap(), stored(len));
            assert_eq!((head.id, &*head.key, head.layout.body), (7, &b"key"[..], len as u64));
            assert_eq!(head.stored.head.headers, expected.head.headers);
            assert_eq!(head.stored.head.status, expected.head.status);
            assert_eq!((&head.stored.facts, &head.stored.vary), (&expected.facts, &expected.vary));
            assert_eq!((&head.stored.tags, &head.stored.url), (&expected.tags, &expected.url));
        }
    }

    #[test]
    fn pieces_of_any_size_have_the_checksums_of_the_whole() {
        let bytes: Vec<u8> = (0..5 * BLOCK).map(|at| (at * 7 % 253) as u8).collect();
        for size in [1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3] {
            let budget = std::sync::Arc::new(crate::cache::fill::Budget::new(usize::MAX));
            let (body, mut filler) = Body::coming(u64::MAX, budget);
            bytes.chunks(size).for_each(|piece| filler.push(Bytes::copy_from_slice(piece)));
            filler.finish(true);
            let expected: Vec<u64> = bytes.chunks(BLOCK).map(checksum).collect();
            assert_eq!(checksums(&body), expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_or_with_any_bit_turned_is_noticed() {
        let file = file(300);
        for len in 0..file.len() {
            assert!(read(&file[..len]).is_none(), "cut at {len}");
        }
        for at in 0..file.len() * 8 {
            let mut turned = file.clone();
            turned[at / 8] ^= 1 << (at % 8);
            assert!(read(&turned).is_none(), "bit {at}");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(read(&longer).is_none());
    }

    #[test]
    fn a_head_with_the_body_of_another_is_noticed() {
        let (mut one, other) = (file(2 * BLOCK), file(2 * BLOCK + 1));
        let begin = one.len() - 2 * BLOCK;
        let begin_of_other = other.len() - 2 * BLOCK;
        one.truncate(begin);
        one.extend_from_slice(&other[begin_of_other..]);
        assert!(read(&one).is_none());
    }
}
