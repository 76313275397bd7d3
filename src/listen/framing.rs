//! The head of an HTTP/1.1 request, read by the grammar and no more (RFC 9112).
//!
//! A head that two readers can understand differently is how requests are smuggled past whoever looks at them. Parsers
//! forgive a lot, each something else; this one forgives nothing. What passes leaves no choice: every line ends with CRLF,
//! there is one host, one length or the one coding that everybody knows, or neither.

use super::Limits;
use crate::exchange::RequestHead;
use crate::reply::Kind;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use std::fmt;

/// Longest method. The registered ones have up to 17 letters.
const MAX_METHOD: usize = 32;

/// What a head may have besides what [`Limits`] count: the words of the request line, colons, spaces and line ends.
const SPARE: u64 = 128;
const SPARE_FIELD: u64 = 8;

/// There is room for so many fields before a head's map grows; one that is sent on gets some more.
const USUAL_FIELDS: usize = 8;

macro_rules! flaws {
    ($($(#[doc = $doc:literal])* $name:ident = $kind:ident, $code:literal, $detail:literal;)*) => {
        /// Why a request is not taken. Clients are told the kind of problem and a sentence, the log and the metric a code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Flaw { $($(#[doc = $doc])* $name,)* }

        impl Flaw {
            /// Every flaw.
            pub const ALL: &[Flaw] = &[$(Flaw::$name),*];

            /// Stable code: `reason` in the log and the metric.
            pub fn code(self) -> &'static str {
                match self { $(Flaw::$name => $code,)* }
            }

            /// What the client is answered.
            pub fn kind(self) -> Kind {
                match self { $(Flaw::$name => Kind::$kind,)* }
            }

            /// The same in a sentence.
            pub fn detail(self) -> &'static str {
                match self { $(Flaw::$name => $detail,)* }
            }
        }
    };
}

flaws! {
    /// The target is no address after all.
    Malformed = BAD_REQUEST, "malformed", "The head of the request is not valid.";
    /// LF without CR.
    LineEnd = BAD_REQUEST, "line-end", "A line does not end with CRLF.";
    /// CR, NUL or another control character.
    Control = BAD_REQUEST, "control-character", "There is a control character in the head.";
    /// More than a client may forget behind a body (section 2.2).
    EmptyLines = BAD_REQUEST, "empty-lines", "There are empty lines in front of the request.";
    /// It is not three words with one space between them; HTTP/0.9 has two.
    RequestLine = BAD_REQUEST, "request-line", "The first line is no request line.";
    /// It is no token, or too long for one.
    Method = BAD_REQUEST, "method", "The method is not valid.";
    /// There are characters in it that must be escaped.
    Target = BAD_REQUEST, "target", "The target has characters that must be escaped.";
    /// It is neither a path nor an address nor `*`, and the method is OPTIONS: others are told by whoever looks for a route.
    TargetForm = BAD_PATH, "bad-path", "The target is neither a path nor an address.";
    /// It has what is never sent.
    Fragment = BAD_REQUEST, "fragment", "The target has a fragment.";
    /// It has a user.
    UserInfo = BAD_HOST, "user-info", "The target has user information.";
    /// It is longer than `limits.uri`.
    TargetTooLong = URI_TOO_LONG, "uri-too-long", "The address of the request is too long.";
    /// It is neither HTTP/1.1 nor HTTP/1.0.
    Version = VERSION, "http-version", "The version of HTTP is not spoken here.";
    /// A field goes over more than one line (section 5.2), or the first one begins with a space.
    Folded = BAD_REQUEST, "folded-line", "A header field goes over more than one line.";
    /// A line has no colon.
    NoColon = BAD_REQUEST, "no-colon", "A header field has no colon.";
    /// There is space in front of a colon (section 5.1).
    SpaceBeforeColon = BAD_REQUEST, "space-before-colon", "There is space between a field name and its colon.";
    /// A field's name is no token, or is one that some read as another.
    FieldName = BAD_REQUEST, "field-name", "A header field's name is not valid.";
    /// There are more than `limits.headers`, or more bytes than all limits allow together.
    TooLarge = HEADERS_TOO_LARGE, "headers-too-large", "The header fields of the request are too large.";
    /// HTTP/1.1 needs one.
    MissingHost = BAD_HOST, "missing-host", "There is no Host.";
    /// There are two.
    DoubledHost = BAD_HOST, "doubled-host", "There is more than one Host.";
    /// It is empty or no host.
    Host = BAD_HOST, "bad-host", "The Host is not valid.";
    /// The target names another one than `Host`.
    OtherHost = BAD_HOST, "other-host", "The target is for another host than Host says.";
    /// It is not a plain number.
    Length = BAD_REQUEST, "content-length", "Content-Length is not a number.";
    /// There are two, even if they say the same.
    DoubledLength = BAD_REQUEST, "doubled-content-length", "There is more than one Content-Length.";
    /// It is anything but `chunked`, or there are two.
    Coding = BAD_REQUEST, "transfer-encoding", "Transfer-Encoding is not chunked alone.";
    /// HTTP/1.0 has none.
    CodingInHttp10 = BAD_REQUEST, "transfer-encoding-http-1.0", "HTTP/1.0 has no Transfer-Encoding.";
    /// The body has both, and they may disagree (section 6.1).
    LengthAndCoding = BAD_REQUEST, "length-and-coding", "There are both Content-Length and Transfer-Encoding.";
    /// Something else than `100-continue` is expected.
    Expectation = EXPECTATION, "expectation", "Only 100-continue can be expected.";
    /// The head took longer than `limits.header_timeout`.
    Slow = CLIENT_TIMEOUT, "header-timeout", "The head of the request took too long.";
    /// A chunk has no size, or something else than extensions behind it.
    ChunkSize = BAD_REQUEST, "chunk-size", "A chunk of the body has no valid size.";
    /// Extensions of chunks are malformed or too long.
    ChunkExtension = BAD_REQUEST, "chunk-extension", "An extension of a chunk is not valid.";
    /// A chunk is longer or shorter than it says.
    ChunkEnd = BAD_REQUEST, "chunk-end", "A chunk of the body does not end where it says.";
    /// Trailers are malformed or too long.
    Trailer = BAD_REQUEST, "trailer", "A trailer field is not valid.";
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for Flaw {}

/// What a head says of the body behind it (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// It has so many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

/// Where the head ends that `read` begins with: behind the first empty line, however its lines end. The first `seen` bytes
/// were looked at before.
pub fn end(read: &[u8], seen: usize) -> Option<usize> {
    // The end may have begun in what was seen.
    let from = seen.saturating_sub(3);
    let fresh = read.get(from..).unwrap_or_default();
    memchr::memchr_iter(b'\n', fresh).find_map(|at| match fresh.get(at + 1..)? {
        [b'\r', b'\n', ..] => Some(from + at + 3),
        [b'\n', ..] => Some(from + at + 2),
        _ => None,
    })
}

/// The head of a request.
#[derive(Debug)]
pub struct Head {
    /// What it asks for. The target is in origin form, whatever it was: what an absolute one says of the host is also in `Host`.
    /// `*` stands for everything that is neither. Values are slices of what was read.
    pub request: RequestHead,
    /// Bytes of it.
    pub length: usize,
    /// What it says of the body.
    pub body: Body,
    /// Whether the client wants to ask for more over the connection (section 9.3).
    pub keeps: bool,
}

/// Reads the head that `read` begins with. `None` when there is more to come.
///
/// # Errors
/// What is wrong with it, as far as it was read.
pub fn parse(read: &Bytes, limits: &Limits) -> Result<Option<Head>, Flaw> {
    let Some((line, mut rest)) = take_line(read)? else { return Ok(None) };
    let mut fields = Fields::new(read, request_line(line, limits)?);
    loop {
        let Some((line, behind)) = take_line(rest)? else { return Ok(None) };
        rest = behind;
        if line.is_empty() {
            break;
        }
        fields.take(line, limits)?;
    }
    let length = read.len() - rest.len();
    if length as u64 > largest(limits) {
        return Err(Flaw::TooLarge);
    }
    fields.head(length).map(Some)
}

/// Checks as much of a head as there is, so that nobody waits for the rest of what cannot become one.
///
/// # Errors
/// What is wrong with it.
pub fn check_begun(read: &[u8], limits: &Limits) -> Result<(), Flaw> {
    if read.len() as u64 > largest(limits) {
        return Err(Flaw::TooLarge);
    }
    if let Some((line, _)) = take_line(read)? {
        return request_line(line, limits).map(drop);
    }
    match read {
        [] | [b'\r'] => Ok(()),
        [first, ..] if !is_token(*first) => Err(Flaw::RequestLine),
        _ if read.len() as u64 > limits.uri.saturating_add(SPARE) => Err(Flaw::TargetTooLong),
        _ => Ok(()),
    }
}

/// Method and target of what may be a request, for the log.
pub fn glimpse(read: &[u8]) -> Option<(&[u8], &[u8])> {
    const LONGEST: usize = 1024;
    let line = read.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let plain = is_method(method) && target.iter().all(u8::is_ascii_graphic) && target.len() <= LONGEST;
    plain.then_some((method, target))
}

/// Most bytes of a head by all limits together.
fn largest(limits: &Limits) -> u64 {
    let fields = limits.headers as u64 * SPARE_FIELD;
    limits.uri.saturating_add(limits.header_bytes).saturating_add(fields).saturating_add(SPARE)
}

/// A line without its end, and what is behind it.
type Line<'a> = (&'a [u8], &'a [u8]);

/// The first line; `None` when its end has not come.
fn take_line(bytes: &[u8]) -> Result<Option<Line<'_>>, Flaw> {
    let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    match bytes.split_at_checked(end) {
        Some(([line @ .., b'\r'], [_, rest @ ..])) => Ok(Some((line, rest))),
        _ => Err(Flaw::LineEnd),
    }
}

/// What counts of a request line.
struct Request<'a> {
    http10: bool,
    method: &'a [u8],
    target: &'a [u8],
    /// When the target is in absolute form (RFC 9112 section 3.2.2).
    absolute: Option<Absolute<'a>>,
}

/// A target in absolute form.
struct Absolute<'a> {
    authority: &'a [u8],
    /// Path and query, of which either may be missing.
    path: &'a [u8],
}

fn request_line<'a>(line: &'a [u8], limits: &Limits) -> Result<Request<'a>, Flaw> {
    let (method, rest) = split_while(line, TOKEN);
    let [b' ', rest @ ..] = rest else { return Err(bad_method(line)) };
    let (target, rest) = split_while(rest, TARGET);
    let http10 = match rest {
        b" HTTP/1.1" => false,
        b" HTTP/1.0" => true,
        _ => return Err(bad_target(rest)),
    };
    if method.is_empty() || target.is_empty() {
        return Err(Flaw::RequestLine);
    }
    if method.len() > MAX_METHOD {
        return Err(Flaw::Method);
    }
    if target.len() as u64 > limits.uri {
        return Err(Flaw::TargetTooLong);
    }
    Ok(Request { http10, method, target, absolute: absolute(target)? })
}

/// What is wrong with a line that does not begin with a method and a space.
fn bad_method(line: &[u8]) -> Flaw {
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.nth(1)) {
        (Some([_, ..]), Some(_)) => Flaw::Method,
        _ if !is_clean(line) => Flaw::Control,
        _ => Flaw::RequestLine,
    }
}

/// What is wrong with a target or a version, from where it is.
fn bad_target(rest: &[u8]) -> Flaw {
    match rest {
        [b' ', b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Flaw::Version,
        [] | [b' ', ..] => Flaw::RequestLine,
        // Without a version behind it, it may be anything.
        _ if !rest.contains(&b' ') && rest.first() == Some(&b'\t') => Flaw::RequestLine,
        [b'#', ..] => Flaw::Fragment,
        [0x80..=0xff, ..] => Flaw::Target,
        _ => Flaw::Control,
    }
}

fn is_method(method: &[u8]) -> bool {
    (1..=MAX_METHOD).contains(&method.len()) && split_while(method, TOKEN).1.is_empty()
}

fn absolute(target: &[u8]) -> Result<Option<Absolute<'_>>, Flaw> {
    if target.first() == Some(&b'/') {
        return Ok(None);
    }
    let behind = |scheme: &[u8]| {
        let (begin, rest) = target.split_at_checked(scheme.len())?;
        begin.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let Some(rest) = behind(b"http://").or_else(|| behind(b"https://")) else { return Ok(None) };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, &[]));
    if authority.contains(&b'@') {
        return Err(Flaw::UserInfo);
    }
    check_host(authority).map(|()| Some(Absolute { authority, path }))
}

/// What hosts and ports are written with; more is found out when the route is looked for.
fn check_host(host: &[u8]) -> Result<(), Flaw> {
    if host.is_empty() || !split_while(host, HOST).1.is_empty() { Err(Flaw::Host) } else { Ok(()) }
}

/// The fields so far.
struct Fields<'a> {
    read: &'a Bytes,
    request: Request<'a>,
    headers: HeaderMap,
    count: usize,
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    expects: bool,
    closes: bool,
    keeps: bool,
}

impl<'a> Fields<'a> {
    fn new(read: &'a Bytes, request: Request<'a>) -> Fields<'a> {
        Fields {
            read,
            request,
            headers: HeaderMap::with_capacity(USUAL_FIELDS),
            count: 0,
            host: None,
            length: None,
            chunked: false,
            expects: false,
            closes: false,
            keeps: false,
        }
    }

    fn take(&mut self, line: &'a [u8], limits: &Limits) -> Result<(), Flaw> {
        self.count += 1;
        if self.count > limits.headers {
            return Err(Flaw::TooLarge);
        }
        let (name, value) = field(line)?;
        let shared = match value {
            // A value without bytes may lie anywhere.
            [] => HeaderValue::from_static(""),
            value => HeaderValue::from_maybe_shared(self.read.slice_ref(value)).map_err(|_| Flaw::Control)?,
        };
        // Nearly every field is told apart by the length of its name.
        match name.as_str().len() {
            4 if name == http::header::HOST => self.host(value)?,
            6 if name == EXPECT => self.expect(value)?,
            10 if name == CONNECTION => self.connection(value),
            14 if name == CONTENT_LENGTH => self.length(value)?,
            17 if name == TRANSFER_ENCODING => self.coding(value)?,
            // What goes through CGI's variables on its way is read as the other.
            14 if name == "content_length" => return Err(Flaw::FieldName),
            17 if name == "transfer_encoding" => return Err(Flaw::FieldName),
            _ => {}
        }
        self.headers.try_append(name, shared).map(drop).map_err(|_| Flaw::TooLarge)
    }

    fn host(&mut self, value: &'a [u8]) -> Result<(), Flaw> {
        if self.host.replace(value).is_some() {
            return Err(Flaw::DoubledHost);
        }
        check_host(value)
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Flaw> {
        if std::mem::replace(&mut self.expects, true) || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Flaw::Expectation);
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.closes |= token.eq_ignore_ascii_case(b"close");
            self.keeps |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Flaw> {
        match self.length.replace(number(value).ok_or(Flaw::Length)?) {
            Some(_) => Err(Flaw::DoubledLength),
            None => Ok(()),
        }
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Flaw> {
        if std::mem::replace(&mut self.chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Flaw::Coding);
        }
        Ok(())
    }

    /// What all of it says together.
    fn head(self, length: usize) -> Result<Head, Flaw> {
        let body = self.body()?;
        let Request { http10, method, target, absolute } = self.request;
        let (mut request, ()) = http::Request::new(()).into_parts();
        request.method = Method::from_bytes(method).map_err(|_| Flaw::Method)?;
        request.uri = uri(self.read, method, target, absolute.as_ref())?;
        request.version = if http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        request.headers = self.headers;
        let keeps = !self.closes && (!http10 || self.keeps);
        Ok(Head { request, length, body, keeps })
    }

    fn body(&self) -> Result<Body, Flaw> {
        match (self.host, &self.request.absolute) {
            (None, _) if !self.request.http10 => return Err(Flaw::MissingHost),
            // The target's counts; one that lies may be believed by somebody else (RFC 9112 section 3.2.2).
            (Some(host), Some(absolute)) if host != absolute.authority => return Err(Flaw::OtherHost),
            _ => {}
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Flaw::LengthAndCoding),
            (true, None) if self.request.http10 => Err(Flaw::CodingInHttp10),
            (true, None) => Ok(Body::Chunked),
            (false, Some(length)) => Ok(Body::Length(length)),
            (false, None) => Ok(Body::None),
        }
    }
}

/// The target in origin form.
fn uri(read: &Bytes, method: &[u8], target: &[u8], absolute: Option<&Absolute<'_>>) -> Result<Uri, Flaw> {
    let found = match absolute.map(|absolute| absolute.path) {
        Some([]) => return Ok(Uri::default()),
        Some(query @ [b'?', ..]) => Uri::from_maybe_shared(Bytes::from([b"/", query].concat())),
        Some(path) => Uri::from_maybe_shared(read.slice_ref(path)),
        None if target.first() == Some(&b'/') => Uri::from_maybe_shared(read.slice_ref(target)),
        None if is_mangled(target) => return Err(Flaw::Malformed),
        // `*` is a question about the server (section 3.2.4); nothing else may be taken for it.
        None if target != b"*" && method == b"OPTIONS" => return Err(Flaw::TargetForm),
        None => return Ok(Uri::from_static("*")),
    };
    found.map_err(|_| Flaw::Malformed)
}

/// Whether a target is nearly an address, so that some take it for one.
fn is_mangled(target: &[u8]) -> bool {
    let scheme =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    scheme(b"http:") || scheme(b"https:") || target.windows(4).any(|window| window == b":///")
}

/// A field's name, and its value without the space around it.
fn field(line: &[u8]) -> Result<(HeaderName, &[u8]), Flaw> {
    let colon = memchr::memchr(b':', line).unwrap_or(line.len());
    let name = HeaderName::from_bytes(line.get(..colon).unwrap_or_default());
    match (name, line.get(colon + 1..)) {
        (Ok(name), Some(value)) => Ok((name, trimmed(value))),
        _ => Err(split_field(line).err().unwrap_or(Flaw::FieldName)),
    }
}

/// A value without spaces and tabs around it; anything else that is no value is left, to be found.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A field's name, and what is behind the colon.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Flaw> {
    match split_while(line, TOKEN) {
        ([], [b' ' | b'\t', ..]) => Err(Flaw::Folded),
        ([], _) => Err(Flaw::FieldName),
        (name, [b':', value @ ..]) => Ok((name, value)),
        (_, rest) => Err(match rest.trim_ascii_start().first() {
            Some(b':') => Flaw::SpaceBeforeColon,
            _ if !is_clean(rest) => Flaw::Control,
            _ if rest.contains(&b':') => Flaw::FieldName,
            _ => Flaw::NoColon,
        }),
    }
}

/// Digits and nothing else, none of them a leading zero that some take for octal; far below where arithmetic ends.
fn number(digits: &[u8]) -> Option<u64> {
    const MOST_DIGITS: usize = 18;
    if digits.is_empty() || digits.len() > MOST_DIGITS || (digits.len() > 1 && digits.first() == Some(&b'0'))
    {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// What names and methods are made of (RFC 9110 section 5.6.2).
const TOKEN: u8 = 1;
/// What targets are made of: visible ASCII without `#`. What of it a path may have is decided when the path is brought to its
/// normal form.
const TARGET: u8 = 2;
/// What hosts are made of, with their ports.
const HOST: u8 = 4;

/// What each byte may be a part of.
static CLASSES: [u8; 256] = classes();

#[allow(clippy::indexing_slicing, reason = "run by the compiler")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        let plain = byte.is_ascii_alphanumeric();
        let token = plain
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        let host = plain || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        let target = byte != b'#';
        table[byte as usize] = (token as u8 * TOKEN) | (target as u8 * TARGET) | (host as u8 * HOST);
        byte += 1;
    }
    table
}

fn is_of(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

pub(super) fn is_token(byte: u8) -> bool {
    is_of(byte, TOKEN)
}

/// As much of the beginning as is of a class, and the rest.
fn split_while(bytes: &[u8], class: u8) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !is_of(*byte, class)).unwrap_or(bytes.len());
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
}

/// Whether a value may have this byte: anything but controls, of which tabs are allowed (RFC 9110 section 5.5).
pub(super) fn is_value(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// Whether there are no controls, eight bytes at a time.
fn is_clean(bytes: &[u8]) -> bool {
    match bytes.last_chunk::<8>() {
        // The last eight may have been looked at in part before.
        Some(last) => bytes.as_chunks::<8>().0.iter().all(is_clean_word) && is_clean_word(last),
        None => bytes.iter().all(|byte| is_value(*byte)),
    }
}

fn is_clean_word(word: &[u8; 8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let bits = u64::from_le_bytes(*word);
    let deleted = bits ^ (ONES * 0x7f);
    // The highest bit of a byte that is below 0x20, or is 0x7f; a tab makes a closer look.
    let low = bits.wrapping_sub(ONES * 0x20) & !bits;
    let odd = (low | deleted.wrapping_sub(ONES) & !deleted) & (ONES << 7);
    odd == 0 || word.iter().all(|byte| is_value(*byte))
}

#[cfg(test)]
mod tests;
