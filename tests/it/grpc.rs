//! gRPC calls: deadlines, ends, and what must pass as it is.

use crate::harness::{Call, DEADLINE, Gateway, H2Answer, H2Client, H2Target, H2Upstream, Plan, grpc_message};
use h2::{Reason, SendStream};
use http::{HeaderMap, Request, Response};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FRONT: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0", protocols: [http/1.1, h2c] } }
upstreams: { app: { targets: ["{{app}}"], protocol: grpc, health: none } }
apis:
  shop:
    auth: public
    body: none
    routes: { prices: { match: "POST /shop.Prices/{method}", {{said}} to: app } }
"#;

fn before(app: SocketAddr, said: &str) -> Gateway {
    Plan::new(FRONT).with("app", app).with("said", said).start()
}

fn call(method: &str, fields: &[(&str, &str)]) -> Request<()> {
    let request = Request::post(format!("http://a.test/shop.Prices/{method}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

fn grpc_head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

/// What a target was told of the time, in milliseconds.
fn told(request: &Request<impl Sized>) -> Option<f64> {
    let text = request.headers().get("grpc-timeout")?.to_str().unwrap();
    let (count, unit) = text.split_at(text.len() - 1);
    let unit = [("n", 1e-6), ("u", 1e-3), ("m", 1.0), ("S", 1e3)].into_iter().find(|(name, _)| *name == unit);
    Some(count.parse::<f64>().unwrap() * unit.unwrap().1)
}

/// A target that says nothing, or after `Begun` one message and no more, and how its calls went: what it was told of the time,
/// and how they were ended.
fn endless() -> (H2Target, Receiver<(Option<f64>, Reason)>) {
    let (ended, ends) = mpsc::channel();
    let target = H2Target::start(None, move |call: Call| {
        let ended: Sender<_> = ended.clone();
        async move {
            let Call { request, mut respond } = call;
            let time = told(&request);
            let reason = if request.uri().path().ends_with("Begun") {
                let mut body = respond.send_response(grpc_head(), false)?;
                body.send_data(grpc_message(b"one").into(), false)?;
                poll_fn(|cx| body.poll_reset(cx)).await?
            } else {
                poll_fn(|cx| respond.poll_reset(cx)).await?
            };
            ended.send((time, reason)).unwrap();
            Ok(())
        }
    });
    (target, ends)
}

#[test]
fn a_call_is_over_when_its_time_is() {
    let (target, ends) = endless();
    let gateway = before(target.addr(), "");
    let client = H2Client::connect(gateway.addr("web"));
    let began = Instant::now();
    let answer = client.send(call("Wait", &[("grpc-timeout", "400m")]), &grpc_message(b"hi"));
    let took = began.elapsed();
    assert_eq!((answer.status, answer.headers["grpc-status"].as_bytes()), (200, &b"4"[..]));
    assert_eq!(answer.headers["grpc-message"], "The call took longer than it may");
    assert!(answer.head_only, "a frame behind it would not be gRPC: {answer:?}");
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(10), "{took:?}");
    let (time, reason) = ends.recv_timeout(DEADLINE).unwrap();
    assert!(time.is_some_and(|time| time > 0.0 && time < 400.0), "{time:?}");
    assert_eq!(reason, Reason::CANCEL);
    assert_eq!(gateway.log_line(0)["reason"], "deadline-exceeded");
    assert_eq!(gateway.log_line(0)["attempts"], 1, "nothing is tried again");
}

#[test]
fn a_call_whose_time_ends_midway_says_so_in_its_trailers() {
    let (target, ends) = endless();
    let gateway = before(target.addr(), "");
    let client = H2Client::connect(gateway.addr("web"));
    let answer = client.send(call("Begun", &[("grpc-timeout", "500m")]), &grpc_message(b"hi"));
    assert_eq!((answer.status, answer.body), (200, grpc_message(b"one")));
    assert_eq!(answer.trailers["grpc-status"], "4");
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap().1, Reason::CANCEL);
    let line = gateway.log_line(0);
    assert_eq!((&line["reason"], &line["status"]), (&"deadline-exceeded".into(), &200.into()));
}

#[test]
fn a_call_that_its_client_has_not_ended_is_over_too() {
    let (target, ends) = endless();
    let gateway = before(target.addr(), "");
    let client = H2Client::connect(gateway.addr("web"));
    let answer = client.begin(call("Wait", &[("grpc-timeout", "300m")]), &grpc_message(b"more to come"));
    assert_eq!(answer.headers["grpc-status"], "4");
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap().1, Reason::CANCEL);
    assert_eq!(gateway.log_line(0)["reason"], "deadline-exceeded");
}

#[test]
fn no_time_is_no_call() {
    let (target, _ends) = endless();
    let gateway = before(target.addr(), "");
    let answer = H2Client::connect(gateway.addr("web")).send(call("Wait", &[("grpc-timeout", "0S")]), b"");
    assert_eq!((answer.headers["grpc-status"].as_bytes(), target.connections()), (&b"4"[..], 0));
}

#[test]
fn a_timeout_that_is_none_is_refused() {
    let target = H2Upstream::grpc_echo();
    let gateway = before(target.addr(), "");
    let client = H2Client::connect(gateway.addr("web"));
    for wrong in ["soon", "1s", "123456789m", "-1S", "", "5"] {
        let answer = client.send(call("Get", &[("grpc-timeout", wrong)]), &grpc_message(b"hi"));
        assert_eq!((answer.status, answer.headers["grpc-status"].as_bytes()), (200, &b"3"[..]), "{wrong}");
        assert!(answer.head_only, "{answer:?}");
    }
    let twice = call("Get", &[("grpc-timeout", "5S"), ("grpc-timeout", "6S")]);
    assert_eq!(client.send(twice, b"").headers["grpc-status"], "3");
    assert!(target.requests().is_empty());
    let other =
        Request::post("http://a.test/shop.Prices/Get").header("grpc-timeout", "soon").body(()).unwrap();
    client.send(other, b"{}");
    assert_eq!(
        target.requests()[0].headers()["grpc-timeout"],
        "soon",
        "to others it is a field like any other"
    );
}

#[test]
fn every_attempt_is_told_what_is_left() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&times);
    let target = H2Target::start(None, move |mut call: Call| {
        let first = {
            let mut seen = seen.lock().unwrap();
            seen.push(told(&call.request).unwrap());
            seen.len() == 1
        };
        async move {
            if first {
                // The pause is what is tested.
                tokio::time::sleep(Duration::from_millis(300)).await;
                call.respond.send_reset(Reason::REFUSED_STREAM);
                return Ok(());
            }
            let mut head = grpc_head();
            head.headers_mut().insert("grpc-status", "0".parse().unwrap());
            call.respond.send_response(head, true).map(drop)
        }
    });
    let gateway = before(target.addr(), "");
    let client = H2Client::connect(gateway.addr("web"));
    let answer = client.send(call("Get", &[("grpc-timeout", "9S")]), &grpc_message(b"hi"));
    assert_eq!(answer.headers["grpc-status"], "0");
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 2);
    assert!(times[0] < 9000.0 && times[1] <= times[0] - 300.0, "{times:?}");
}

#[test]
fn a_route_bounds_what_clients_ask_for() {
    let (target, ends) = endless();
    let gateway = before(target.addr(), "timeouts: { deadline: 300ms },");
    let client = H2Client::connect(gateway.addr("web"));
    for (fields, most) in [
        (&[][..], 300.0),
        (&[("grpc-timeout", "1H")], 300.0),
        (&[("grpc-timeout", "99999999H")], 300.0),
        (&[("grpc-timeout", "100m")], 100.0),
    ] {
        let answer = client.send(call("Wait", fields), &grpc_message(b"hi"));
        assert_eq!(answer.headers["grpc-status"], "4");
        let (time, reason) = ends.recv_timeout(DEADLINE).unwrap();
        assert!(time.is_some_and(|time| time <= most) && reason == Reason::CANCEL, "{time:?} {reason:?}");
    }
}

/// Begins an answer, and breaks it off: behind a message or in the middle of one.
async fn breaking(call: Call) -> Result<(), h2::Error> {
    let Call { request, mut respond } = call;
    let mut body: SendStream<_> = respond.send_response(grpc_head(), false)?;
    let mut message = grpc_message(b"one");
    if request.uri().path().ends_with("Part") {
        message.truncate(6);
    }
    body.send_data(message.into(), false)?;
    // It must be on its way before the end is.
    tokio::time::sleep(Duration::from_millis(200)).await;
    body.send_reset(Reason::INTERNAL_ERROR);
    Ok(())
}

#[test]
fn a_call_that_its_target_breaks_off_ends_with_a_status() {
    let target = H2Target::start(None, breaking);
    let gateway = before(target.addr(), "");
    let client = H2Client::connect(gateway.addr("web"));
    for (number, (method, length)) in [("Whole", 8), ("Part", 6)].into_iter().enumerate() {
        let answer = client.send(call(method, &[]), &grpc_message(b"hi"));
        assert_eq!((answer.status, answer.body.len()), (200, length), "{method}");
        assert_eq!(answer.trailers["grpc-status"], "13", "{method}");
        assert_eq!(answer.trailers["grpc-message"], "The server behind the gateway closed the connection");
        let line = gateway.log_line(number);
        assert_eq!((&line["reason"], &line["status"]), (&"upstream-closed".into(), &200.into()), "{method}");
    }
    // A target that takes the reset for a matter of the connection would have lost it.
    assert_eq!(target.connections(), 1);
}

/// "Errors" in the protocol, for each code of HTTP/2 that a target may end a stream with before or behind the head.
#[test]
fn a_reset_says_what_was_wrong() {
    let target = H2Target::start(None, |call: Call| async move {
        let Call { request, mut respond } = call;
        let reason: u32 = request.headers()["x-reason"].to_str().unwrap().parse().unwrap();
        if request.uri().path().ends_with("Begun") {
            let mut body: SendStream<_> = respond.send_response(grpc_head(), false)?;
            body.send_data(grpc_message(b"one").into(), false)?;
            // It must be on its way before the end is.
            tokio::time::sleep(Duration::from_millis(100)).await;
            body.send_reset(reason.into());
        } else {
            respond.send_reset(reason.into());
        }
        Ok(())
    });
    let gateway = before(target.addr(), "retry: { attempts: 1 },");
    let client = H2Client::connect(gateway.addr("web"));
    for (reason, status) in [
        (Reason::NO_ERROR, "13"),
        (Reason::PROTOCOL_ERROR, "13"),
        (Reason::INTERNAL_ERROR, "13"),
        (Reason::REFUSED_STREAM, "14"),
        (Reason::CANCEL, "1"),
        (Reason::ENHANCE_YOUR_CALM, "8"),
        (Reason::INADEQUATE_SECURITY, "7"),
    ] {
        let fields = [("x-reason", &*u32::from(reason).to_string())];
        let answer = client.send(call("Get", &fields), &grpc_message(b"hi"));
        assert_eq!((answer.field("grpc-status"), answer.head_only), (Some(status), true), "{reason:?}");
        // Without a status of its own, the end of an answer is not ours to make up.
        if reason != Reason::NO_ERROR {
            let answer = client.send(call("Begun", &fields), &grpc_message(b"hi"));
            assert_eq!(answer.trailers["grpc-status"], status, "{reason:?}");
        }
    }
}

#[test]
fn big_messages_and_all_metadata_pass_as_they_are() {
    let target = H2Upstream::start(|request| {
        let fields = request.headers().get_all("x-trace-bin");
        let answer = H2Answer::ok(request.body().clone()).header("content-type", "application/grpc+proto");
        let answer = fields.iter().fold(answer, |answer, value| {
            let value = value.to_str().unwrap();
            answer.header("x-trace-bin", value).trailer("x-details-bin", value)
        });
        answer.trailer("grpc-status", "0")
    });
    let gateway = before(target.addr(), "");
    let message: Vec<u8> =
        (0..6_000_000u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let bins = ["AAECAw", "//79+w==", ""];
    let fields: Vec<_> = bins.iter().map(|bin| ("x-trace-bin", *bin)).chain([("x-plain", "a b")]).collect();
    let client = H2Client::connect(gateway.addr("web"));
    let answer = client.send(call("Echo", &fields), &grpc_message(&message));
    assert!(answer.body == grpc_message(&message), "{} bytes came back", answer.body.len());
    let all = |headers: &HeaderMap, name: &str| -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(all(&answer.headers, "x-trace-bin"), bins);
    assert_eq!(all(&answer.trailers, "x-details-bin"), bins);
    assert_eq!(
        (&answer.trailers["grpc-status"], &answer.headers["content-type"]),
        (&"0".parse().unwrap(), &"application/grpc+proto".parse().unwrap())
    );
    let seen = &target.requests()[0];
    assert_eq!(
        (seen.headers()["te"].as_bytes(), seen.headers()["x-plain"].as_bytes()),
        (&b"trailers"[..], &b"a b"[..])
    );
    assert!(
        !seen.headers().contains_key("grpc-timeout") && !seen.headers().contains_key("transfer-encoding")
    );
}

#[test]
fn the_deadline_of_a_call_does_not_outlive_it() {
    let target = H2Upstream::grpc_echo();
    let gateway = before(target.addr(), "");
    let client = H2Client::connect(gateway.addr("web"));
    let answer = client.send(call("Get", &[("grpc-timeout", "8S")]), &grpc_message(b"hi"));
    assert_eq!((answer.body, answer.trailers["grpc-status"].as_bytes()), (grpc_message(b"hi"), &b"0"[..]));
    let time = told(&target.requests()[0]).unwrap();
    assert!(time < 8000.0 && time > 1000.0, "{time}");
    let plain = client.send(call("Get", &[]), &grpc_message(b"hi"));
    assert_eq!(plain.trailers["grpc-status"], "0");
}
