//! How a body is told from what follows it: lengths, codings, chunks, and what is hidden behind them.

use super::corpus::{Row, SMUGGLED, chunked, forward, post, refuse};

/// Adds what is about bodies.
pub fn add(rows: &mut Vec<Row>) {
    lengths(rows);
    codings(rows);
    smuggled(rows);
    chunks(rows);
}

fn lengths(rows: &mut Vec<Row>) {
    for length in [
        "",
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "5 5",
        "5;",
        "0x5",
        "5h",
        "5.0",
        "5e0",
        "\"5\"",
        "05",
        "00",
        "1_0",
        "٥",
        "5,",
        ",5",
        "NaN",
        "18446744073709551615",
        "18446744073709551621",
        "9223372036854775808",
        "99999999999999999999999999",
        "5\t5",
        "0b1",
        "5%",
    ] {
        refuse(rows, post(&format!("Content-Length: {length}\r\n"), "hello"), 400, "content-length");
    }
    for (one, other) in [("5", "5"), ("5", "6"), ("6", "5"), ("0", "5"), ("5", "0")] {
        let fields = format!("Content-Length: {one}\r\ncontent-length: {other}\r\n");
        refuse(rows, post(&fields, "hello"), 400, "doubled-content-length");
    }
}

fn codings(rows: &mut Vec<Row>) {
    for coding in [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "chunked, identity",
        "xchunked",
        "chunkedx",
        "chunked x",
        "\"chunked\"",
        "'chunked'",
        "chunked;q=1",
        "chunked;",
        "x chunked",
        "cow",
        "chunk",
        "c\u{212a}unked",
        "chunKed\u{a0}",
        "identity, chunked",
        "br",
        "trailers",
    ] {
        refuse(
            rows,
            post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n"),
            400,
            "transfer-encoding",
        );
    }
    for (one, other) in [
        ("chunked", "chunked"),
        ("identity", "chunked"),
        ("chunked", "identity"),
        ("chunked", "x"),
        ("", "chunked"),
    ] {
        let fields = format!("Transfer-Encoding: {one}\r\nTransfer-Encoding: {other}\r\n");
        refuse(rows, post(&fields, "0\r\n\r\n"), 400, "transfer-encoding");
    }
    let old = "POST /a HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refuse(rows, old, 400, "transfer-encoding-http-1.0");
}

/// A second request hidden in what the first one's reader may take for its body.
fn smuggled(rows: &mut Vec<Row>) {
    let both = [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "content-length: 5\r\nX: y\r\ntransfer-encoding: Chunked\r\n",
    ];
    for fields in both {
        refuse(rows, post(fields, &format!("0\r\n\r\n{SMUGGLED}")), 400, "length-and-coding");
    }
    for (fields, reason) in [
        ("Content-Length: 44\r\nTransfer-Encoding: xchunked\r\n", "transfer-encoding"),
        ("Content-Length: 44\r\nTransfer-Encoding : chunked\r\n", "space-before-colon"),
        ("Content-Length: 44\r\nTransfer-Encoding:\x0bchunked\r\n", "control-character"),
        ("Content-Length: 44\r\n Transfer-Encoding: chunked\r\n", "folded-line"),
        ("Content-Length: 44\r\nX: y\nTransfer-Encoding: chunked\r\n", "line-end"),
        ("Content-Length: 44\r\nTransfer_Encoding: chunked\r\n", "field-name"),
        ("Content-Length: 44\r\nX: X\rTransfer-Encoding: chunked\r\n", "control-character"),
        ("Content-Length: 44\r\nContent-Length: 0\r\n", "doubled-content-length"),
        ("Content-Length: 0\r\n Content-Length: 44\r\n", "folded-line"),
    ] {
        refuse(rows, post(fields, SMUGGLED), 400, reason);
    }
    // A GET with a body has it taken along, or read to its end, never left behind.
    forward(
        rows,
        format!("GET /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        &[&format!("GET /a a.test {SMUGGLED}")],
    );
    forward(
        rows,
        format!("{}{SMUGGLED}", chunked("0\r\n\r\n")),
        &["POST /a a.test ", "GET /smuggled a.test "],
    );
}

fn chunks(rows: &mut Vec<Row>) {
    for body in [
        "\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5 ;x\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5h\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "0_5\r\nhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        "\"5\"\r\nhello\r\n0\r\n\r\n",
        "1000000000000000\r\nhello",
        "ffffffffffffffff\r\nhello",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "\n5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\nhello\r\n 0\r\n\r\n",
        "5\u{661}\r\nhello\r\n",
        "0\n\r\n",
        "0\r\r\n",
    ] {
        refuse(rows, chunked(body), 400, "chunk-size");
    }
    for body in [
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;\n\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5;a\x7f\r\nhello\r\n0\r\n\r\n",
        "5;a\x0b=b\r\nhello\r\n0\r\n\r\n",
    ] {
        refuse(rows, chunked(body), 400, "chunk-extension");
    }
    refuse(rows, chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(4096))), 400, "chunk-extension");
    refuse(rows, chunked(&format!("{}0\r\n\r\n", "1;abcdefgh\r\nx\r\n".repeat(600))), 400, "chunk-extension");
    for body in [
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello \r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhel\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
    ] {
        refuse(rows, chunked(body), 400, "chunk-end");
    }
    for body in [
        "0\r\n\n",
        "0\r\n\r\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\nx: y\r\n z\r\n\r\n",
        "0\r\nx : y\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\nx: \0\r\n\r\n",
        "0\r\nx: a\rb: c\r\n\r\n",
        "0\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "0\r\n x: y\r\n\r\n",
    ] {
        refuse(rows, chunked(body), 400, "trailer");
    }
    refuse(rows, chunked(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(1500))), 400, "trailer");
}
