use super::*;
use proptest::prelude::*;

fn limits() -> Limits {
    Limits { uri: 64, headers: 8, header_bytes: 256, ..Limits::default() }
}

/// The length of a head and what it says of the body.
fn check(read: &[u8], limits: &Limits) -> Result<Option<(usize, Body)>, Flaw> {
    let found = parse(&Bytes::copy_from_slice(read), limits)?;
    Ok(found.map(|head| (head.length, head.body)))
}

fn checked(text: &str) -> Result<Body, Flaw> {
    check(text.as_bytes(), &limits()).map(|found| found.expect("a whole head").1)
}

/// A head with these lines behind its request line.
fn with(fields: &str) -> Result<Body, Flaw> {
    checked(&format!("POST /a HTTP/1.1\r\n{fields}\r\n"))
}

/// A head with this request line.
fn asks(line: &str) -> Result<Body, Flaw> {
    checked(&format!("{line}\r\nHost: a.test\r\n\r\n"))
}

#[test]
fn the_end_of_a_head_is_found_wherever_it_is_cut() {
    for head in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET / HTTP/1.1\nhost: a\n\n", "GET / HTTP/1.1\r\n\n"] {
        let bytes = head.as_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(end(&bytes[..cut], 0), None, "{head:?} cut at {cut}");
            let more = [bytes, b"more\r\n\r\n"].concat();
            assert_eq!(end(&more, cut), Some(bytes.len()), "{head:?} seen up to {cut}");
        }
    }
}

#[test]
fn a_head_in_pieces_is_waited_for() {
    let head = b"POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n";
    for cut in 0..head.len() {
        assert_eq!(check(&head[..cut], &limits()), Ok(None), "cut at {cut}");
    }
    let more = [&head[..], b"hello\n"].concat();
    assert_eq!(check(&more, &limits()), Ok(Some((head.len(), Body::Length(5)))));
}

#[test]
fn what_is_usual_passes() {
    let curl = "GET /a?b=c HTTP/1.1\r\nHost: a.test:8080\r\nUser-Agent: curl/8.5\r\nAccept: */*\r\n\r\n";
    assert_eq!(checked(curl), Ok(Body::None));
    for (fields, body) in [
        ("Host: a.test\r\n", Body::None),
        ("host:a.test\r\n", Body::None),
        ("HOST:\t a.test \t\r\n", Body::None),
        ("Host: [2001:db8::1]:443\r\n", Body::None),
        ("Host: a\r\nContent-Length: 0\r\n", Body::Length(0)),
        ("Host: a\r\nContent-Length: 17\r\n", Body::Length(17)),
        ("Host: a\r\ncontent-length:  17 \r\n", Body::Length(17)),
        ("Host: a\r\nTransfer-Encoding: chunked\r\n", Body::Chunked),
        ("Host: a\r\ntransfer-encoding:Chunked\r\n", Body::Chunked),
        ("Host: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n", Body::Length(1)),
        ("Host: a\r\nX-Empty:\r\nX-Tab: a\tb\r\nX-Bytes: \u{e9}\r\n", Body::None),
        ("Host: a\r\n!#$%&'*+-.^_`|~09: odd but a token\r\n", Body::None),
    ] {
        assert_eq!(with(fields), Ok(body), "{fields:?}");
    }
    for line in [
        "M-SEARCH * HTTP/1.1",
        "GET http://a.test/b?c HTTP/1.1",
        "GET https://a.test HTTP/1.0",
        "CONNECT a.test:443 HTTP/1.1",
    ] {
        assert_eq!(asks(line), Ok(Body::None), "{line:?}");
    }
    assert_eq!(checked("GET / HTTP/1.0\r\n\r\n"), Ok(Body::None), "HTTP/1.0 needs no host");
}

#[test]
fn request_lines_have_three_words() {
    for (line, flaw) in [
        ("GET /", Flaw::RequestLine),
        ("GET", Flaw::RequestLine),
        (" GET / HTTP/1.1", Flaw::RequestLine),
        ("GET  / HTTP/1.1", Flaw::RequestLine),
        ("GET / HTTP/1.1 ", Flaw::RequestLine),
        ("GET /  HTTP/1.1", Flaw::RequestLine),
        ("GET / b HTTP/1.1", Flaw::RequestLine),
        ("GET / http/1.1", Flaw::RequestLine),
        ("GET / HTTP/1.10", Flaw::RequestLine),
        ("GET / HTTP/11", Flaw::RequestLine),
        ("GET / HTTP/1,1", Flaw::RequestLine),
        ("GET / HTCPCP/1.1", Flaw::RequestLine),
        ("GET / HTTP/1.1\rX", Flaw::RequestLine),
        ("GET\t/ HTTP/1.1", Flaw::RequestLine),
        ("GET\t/\tHTTP/1.1", Flaw::RequestLine),
        ("GET\0/", Flaw::Control),
        ("G(T / HTTP/1.1", Flaw::Method),
        ("G\u{e9}T / HTTP/1.1", Flaw::Method),
        ("GET / HTTP/0.9", Flaw::Version),
        ("GET / HTTP/1.2", Flaw::Version),
        ("GET / HTTP/2.0", Flaw::Version),
        ("GET /a\tb HTTP/1.1", Flaw::Control),
        ("GET /a\0 HTTP/1.1", Flaw::Control),
        ("GET /a\x7f HTTP/1.1", Flaw::Control),
        ("GET /a\rb HTTP/1.1", Flaw::Control),
        ("GET /\u{e9} HTTP/1.1", Flaw::Target),
        ("GET /a#b HTTP/1.1", Flaw::Fragment),
        ("GET http://u@a.test/ HTTP/1.1", Flaw::UserInfo),
        ("GET http://a.test@b.test/ HTTP/1.1", Flaw::UserInfo),
        ("GET http://b.test/ HTTP/1.1", Flaw::OtherHost),
        ("GET http://a.test:80/ HTTP/1.1", Flaw::OtherHost),
        ("GET http:///a HTTP/1.1", Flaw::Host),
        ("GET http://a.test\\b/ HTTP/1.1", Flaw::Host),
    ] {
        assert_eq!(asks(line), Err(flaw), "{line:?}");
    }
    assert_eq!(asks(&format!("GET /{} HTTP/1.1", "a".repeat(64))), Err(Flaw::TargetTooLong));
    assert_eq!(asks(&format!("{} / HTTP/1.1", "A".repeat(33))), Err(Flaw::Method));
}

#[test]
fn fields_are_a_name_a_colon_and_a_value() {
    for (fields, flaw) in [
        ("Host: a\nX: y\r\n", Flaw::LineEnd),
        ("Host: a\r\nX: y\n", Flaw::LineEnd),
        ("Host: a\r\n\n", Flaw::LineEnd),
        ("Host: a\r\nX: y\rZ: z\r\n", Flaw::Control),
        ("Host: a\r\nX: y\r\r\n", Flaw::Control),
        ("Host: a\r\nX: \0\r\n", Flaw::Control),
        ("Host: a\r\nX: \x0b\r\n", Flaw::Control),
        ("Host: a\r\nX: 12345678\x7f\r\n", Flaw::Control),
        ("Host: a\r\nX: y\r\n z\r\n", Flaw::Folded),
        ("Host: a\r\nX: y\r\n\tz\r\n", Flaw::Folded),
        ("Host: a\r\nX:\r\n y\r\n", Flaw::Folded),
        (" Host: a\r\n", Flaw::Folded),
        ("Host : a\r\n", Flaw::SpaceBeforeColon),
        ("Host\t: a\r\n", Flaw::SpaceBeforeColon),
        ("Host: a\r\nContent-Length : 5\r\n", Flaw::SpaceBeforeColon),
        ("Host: a\r\nnothing\r\n", Flaw::NoColon),
        ("Host: a\r\nGET / HTTP/1.1\r\n", Flaw::NoColon),
        ("Host: a\r\n: y\r\n", Flaw::FieldName),
        ("Host: a\r\nX Y: z\r\n", Flaw::FieldName),
        ("Host: a\r\nX(: z\r\n", Flaw::FieldName),
        ("Host: a\r\nX\u{e9}: z\r\n", Flaw::FieldName),
        ("Host: a\r\nX\0: z\r\n", Flaw::Control),
        ("Host: a\r\nContent_Length: 5\r\n", Flaw::FieldName),
        ("Host: a\r\nTransfer_Encoding: chunked\r\n", Flaw::FieldName),
    ] {
        assert_eq!(with(fields), Err(flaw), "{fields:?}");
    }
    assert_eq!(with(&"X: y\r\n".repeat(9)), Err(Flaw::TooLarge));
    assert_eq!(with(&format!("X: {}\r\n", "y".repeat(600))), Err(Flaw::TooLarge));
}

#[test]
fn a_request_has_one_host() {
    for (fields, flaw) in [
        ("X: y\r\n", Flaw::MissingHost),
        ("Host: a\r\nHost: a\r\n", Flaw::DoubledHost),
        ("Host: a\r\nhost: b\r\n", Flaw::DoubledHost),
        ("Host:\r\n", Flaw::Host),
        ("Host: a b\r\n", Flaw::Host),
        ("Host: a,b\r\n", Flaw::Host),
        ("Host: a/b\r\n", Flaw::Host),
        ("Host: u@a\r\n", Flaw::Host),
        ("Host: \u{e9}\r\n", Flaw::Host),
        ("Host: a%2e\r\n", Flaw::Host),
    ] {
        assert_eq!(with(fields), Err(flaw), "{fields:?}");
    }
}

#[test]
fn a_body_is_told_in_one_way() {
    for (fields, flaw) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Flaw::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Flaw::LengthAndCoding),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Flaw::DoubledLength),
        ("Content-Length: 5\r\ncontent-length: 6\r\n", Flaw::DoubledLength),
        ("Content-Length: 5, 5\r\n", Flaw::Length),
        ("Content-Length: 5,5\r\n", Flaw::Length),
        ("Content-Length: +5\r\n", Flaw::Length),
        ("Content-Length: -5\r\n", Flaw::Length),
        ("Content-Length:\r\n", Flaw::Length),
        ("Content-Length: 5 5\r\n", Flaw::Length),
        ("Content-Length: 0x5\r\n", Flaw::Length),
        ("Content-Length: 05\r\n", Flaw::Length),
        ("Content-Length: 5.0\r\n", Flaw::Length),
        ("Content-Length: 1e3\r\n", Flaw::Length),
        ("Content-Length: \"5\"\r\n", Flaw::Length),
        ("Content-Length: 18446744073709551621\r\n", Flaw::Length),
        ("Transfer-Encoding: gzip, chunked\r\n", Flaw::Coding),
        ("Transfer-Encoding: chunked, chunked\r\n", Flaw::Coding),
        ("Transfer-Encoding: chunked, identity\r\n", Flaw::Coding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Flaw::Coding),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", Flaw::Coding),
        ("Transfer-Encoding: identity\r\n", Flaw::Coding),
        ("Transfer-Encoding: xchunked\r\n", Flaw::Coding),
        ("Transfer-Encoding: chunked;q=1\r\n", Flaw::Coding),
        ("Transfer-Encoding: \"chunked\"\r\n", Flaw::Coding),
        ("Transfer-Encoding: ,chunked\r\n", Flaw::Coding),
        ("Transfer-Encoding:\r\n", Flaw::Coding),
        ("Expect: 200-ok\r\n", Flaw::Expectation),
        ("Expect: 100-continue, x\r\n", Flaw::Expectation),
        ("Expect: 100-continue\r\nExpect: 100-continue\r\n", Flaw::Expectation),
    ] {
        assert_eq!(with(&format!("Host: a\r\n{fields}")), Err(flaw), "{fields:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(checked(old), Err(Flaw::CodingInHttp10));
}

#[test]
fn what_cannot_become_a_head_is_refused_early() {
    for (begun, flaw) in [
        ("GET /\r\n", Flaw::RequestLine),
        ("GET / HTTP/1.1\nHost", Flaw::LineEnd),
        ("\n", Flaw::LineEnd),
        (" GET", Flaw::RequestLine),
        ("\x16\x03\x01", Flaw::RequestLine),
        ("\rGET", Flaw::RequestLine),
    ] {
        assert_eq!(check_begun(begun.as_bytes(), &limits()), Err(flaw), "{begun:?}");
    }
    for begun in
        ["", "\r", "G", "GET /abc", "GET / HTTP/1.1", "GET / HTTP/1.1\r", "GET / HTTP/1.1\r\nHost: a\r\nX"]
    {
        assert_eq!(check_begun(begun.as_bytes(), &limits()), Ok(()), "{begun:?}");
    }
    let endless = format!("GET /{}", "a".repeat(400));
    assert_eq!(check_begun(endless.as_bytes(), &limits()), Err(Flaw::TargetTooLong));
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(600));
    assert_eq!(check_begun(endless.as_bytes(), &limits()), Err(Flaw::TooLarge));
}

#[test]
fn what_can_be_made_out_is_told() {
    let seen = |text: &'static str| glimpse(text.as_bytes());
    assert_eq!(seen("GET /a?b HTTP/9\r\nx"), Some((&b"GET"[..], &b"/a?b"[..])));
    assert_eq!(seen("GET /a"), Some((&b"GET"[..], &b"/a"[..])));
    assert_eq!((seen(""), seen("GET"), seen("G\0T /"), seen("GET /\x1b HTTP/1.1")), (None, None, None, None));
}

#[test]
fn codes_tell_flaws_apart() {
    let codes: std::collections::BTreeSet<&str> = Flaw::ALL.iter().map(|flaw| flaw.code()).collect();
    assert_eq!(codes.len(), Flaw::ALL.len());
}

/// Lines that are nearly fields, put together in all ways.
fn pieces() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("Host: a.test".to_owned()),
        Just("Content-Length: 5".to_owned()),
        Just("Transfer-Encoding: chunked".to_owned()),
        Just("Content-Length: 5\r\n 6".to_owned()),
        "[A-Za-z-]{1,8}[ \t]?:[ \t]?[ -~\t\u{1}]{0,12}",
        "[ -~]{0,12}",
    ];
    let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    prop::collection::vec((line, end), 0..6)
        .prop_map(|lines| lines.into_iter().map(|(line, end)| line + end).collect::<String>())
}

proptest! {
    #[test]
    fn what_passes_is_read_alike_by_others(fields in pieces(), line in "(GET|POST) (/[!-~]{0,6}|http://a.test/) HTTP/1.[01]") {
        let text = format!("{line}\r\n{fields}\r\n");
        if let Ok(Some((length, body))) = check(text.as_bytes(), &Limits::default()) {
            prop_assert_eq!(end(text.as_bytes(), 0), Some(length));
            let mut slots = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut slots);
            prop_assert_eq!(request.parse(text.as_bytes()), Ok(httparse::Status::Complete(length)));
            let values = |name: &str| -> Vec<&[u8]> {
                request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value).collect()
            };
            let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
            let read = match (lengths.as_slice(), codings.as_slice()) {
                ([], []) => Body::None,
                ([only], []) => Body::Length(std::str::from_utf8(only).unwrap().parse().unwrap()),
                ([], [b"chunked"]) => Body::Chunked,
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert_eq!(read, body);
        }
    }
}

#[test]
fn a_head_is_read_as_it_is_written() {
    let read =
        |text: &str| parse(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap().unwrap();
    let head =
        read("PUT /a?b HTTP/1.1\r\nHOST: a\r\nX-One:  1\t\r\nx-one: 2\r\nEmpty:\r\nAccept: */*\r\n\r\nbody");
    assert_eq!((head.request.method.as_str(), head.request.version), ("PUT", Version::HTTP_11));
    assert_eq!((head.request.uri.path(), head.request.uri.query()), ("/a", Some("b")));
    let fields: Vec<_> =
        head.request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(fields, [("host", "a"), ("x-one", "1"), ("x-one", "2"), ("empty", ""), ("accept", "*/*")]);
    for (target, uri) in [
        ("http://a", "/"),
        ("HTTP://a/", "/"),
        ("https://a?b", "/?b"),
        ("http://a/b?c", "/b?c"),
        ("//a/b", "//a/b"),
        ("*", "*"),
        ("a:443", "*"),
        ("ftp://a/", "*"),
    ] {
        let found = read(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(found.request.uri.to_string(), uri, "{target}");
    }
}

#[test]
fn connections_are_kept_as_clients_want() {
    for (version, fields, keeps) in [
        ("1.1", "", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: x, close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let head = parse(&Bytes::from(text), &Limits::default()).unwrap().unwrap();
        assert_eq!(head.keeps, keeps, "{version} {fields:?}");
    }
}
