//! Names that change, fail and come back.

use super::*;

/// What the name server in these tests says at the moment.
#[derive(Clone)]
enum Says {
    Addresses(Vec<Ipv4Addr>, u32),
    ServFail,
    NxDomain,
}

/// A name server that answers every A query with what it is told to say, and AAAA with nothing.
async fn name_server(says: Says) -> (SocketAddr, Arc<Mutex<Says>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let shared = Arc::new(Mutex::new(says));
    let told = Arc::clone(&shared);
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = dns_answer(&buffer[..length], &told.lock());
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    (address, shared)
}

fn dns_answer(query: &[u8], says: &Says) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[12..name_end + 4];
    let wants_a = question[question.len() - 3] == 1;
    let (code, addresses, ttl) = match says {
        Says::Addresses(addresses, ttl) if wants_a => (0, addresses.as_slice(), *ttl),
        Says::Addresses(_, ttl) => (0, &[][..], *ttl),
        Says::ServFail => (2, &[][..], 0),
        Says::NxDomain => (3, &[][..], 0),
    };
    let mut answer = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0];
    answer.extend_from_slice(question);
    for address in addresses {
        answer.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1]);
        answer.extend_from_slice(&ttl.to_be_bytes());
        answer.extend_from_slice(&[0, 4]);
        answer.extend_from_slice(&address.octets());
    }
    answer
}

fn labels(upstream: &Upstream) -> Vec<String> {
    upstream.targets().iter().map(|target| target.label().to_string()).collect()
}

#[tokio::test]
async fn names_are_followed_and_the_last_good_addresses_kept() {
    let at = |last: &[u8], ttl| {
        Says::Addresses(last.iter().map(|last| Ipv4Addr::new(10, 0, 0, *last)).collect(), ttl)
    };
    let (server, says) = name_server(at(&[2, 1], 0)).await;
    let resolver = resolver(&[server]);
    let upstream = Upstream::new(named("app.test:80"), &resolver, &client(), None).unwrap();
    assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::NoTargets);
    let supervisor = run(&upstream);
    assert!(upstream.warm(Duration::from_secs(10)).await);
    assert_eq!(labels(&upstream), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(upstream.members().all()[0].weight, 2, "the weight is each address's");
    assert_eq!(upstream.targets()[0].name().map(|name| &**name), Some("app.test"));
    let stays = upstream.targets()[1].id();

    *says.lock() = at(&[2, 3], 0);
    until("new addresses", || labels(&upstream) == ["10.0.0.2:80", "10.0.0.3:80"]).await;
    assert_eq!(upstream.targets()[0].id(), stays, "an address that stays keeps what is known of it");
    for broken in [Says::ServFail, Says::NxDomain] {
        *says.lock() = broken;
        let before = upstream.dns_failures();
        until("failures", || upstream.dns_failures() > before + 1).await;
        assert_eq!(labels(&upstream), ["10.0.0.2:80", "10.0.0.3:80"]);
    }
    let mut changed = named("app.test:80");
    changed.balance = Balance::LeastConn;
    let reloaded = Upstream::new(changed, &resolver, &client(), Some(&upstream)).unwrap();
    assert_eq!(reloaded.targets()[0].id(), stays, "a reload while the name server is down loses nothing");
    *says.lock() = at(&[4], 0);
    until("recovery", || labels(&upstream) == ["10.0.0.4:80"]).await;
    supervisor.stop().await;
}

#[tokio::test]
async fn a_long_ttl_is_left_alone() {
    let (server, says) = name_server(Says::Addresses(vec![Ipv4Addr::new(10, 0, 0, 1)], 3600)).await;
    let upstream = Upstream::new(named("app.test:80"), &resolver(&[server]), &client(), None).unwrap();
    let supervisor = run(&upstream);
    assert!(upstream.warm(Duration::from_secs(10)).await);
    *says.lock() = Says::ServFail;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((labels(&upstream), upstream.dns_failures()), (vec!["10.0.0.1:80".to_owned()], 0));
    supervisor.stop().await;
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_does_not_hold_up_the_start() {
    let (server, _) = name_server(Says::NxDomain).await;
    let upstream = Upstream::new(named("nowhere.test:80"), &resolver(&[server]), &client(), None).unwrap();
    let supervisor = run(&upstream);
    assert!(upstream.warm(Duration::from_secs(10)).await);
    assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::NoTargets);
    supervisor.stop().await;
}

#[tokio::test]
async fn localhost_needs_no_name_server() {
    let upstream = make(named("localhost:3000"));
    let supervisor = run(&upstream);
    assert!(upstream.warm(Duration::from_secs(10)).await);
    let addresses = upstream.targets();
    let loopback = |target: &Arc<Target>| matches!(target.place(), Place::Inet(at) if at.ip().is_loopback());
    assert!(!addresses.is_empty() && addresses.iter().all(loopback), "{addresses:?}");
    assert!(addresses.iter().any(
        |target| matches!(target.place(), Place::Inet(at) if at.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST))
    ));
    supervisor.stop().await;
}

#[tokio::test]
async fn new_addresses_are_checked_and_gone_ones_no_longer() {
    let (open, served) =
        http1(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()).await;
    let (server, says) = name_server(Says::Addresses(vec![Ipv4Addr::new(127, 0, 0, 2)], 0)).await;
    let mut spec = named(&format!("app.test:{}", open.port()));
    let probe = Probe::Http { method: http::Method::GET, path: "/".into(), host: None, expect: vec![] };
    spec.health = HealthSpec { probe, every: Duration::from_millis(20), ..HealthSpec::default() };
    let upstream = Upstream::new(spec, &resolver(&[server]), &client(), None).unwrap();
    let supervisor = run(&upstream);
    assert!(upstream.warm(Duration::from_secs(10)).await);
    assert!(!upstream.is_healthy() && served.load(Ordering::SeqCst) == 0, "nobody listens at 127.0.0.2");
    *says.lock() = Says::Addresses(vec![Ipv4Addr::LOCALHOST], 0);
    until("checked and healthy", || upstream.is_healthy() && served.load(Ordering::SeqCst) > 2).await;
    *says.lock() = Says::Addresses(vec![Ipv4Addr::new(127, 0, 0, 2)], 0);
    until("gone", || !upstream.is_healthy()).await;
    let last = served.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(served.load(Ordering::SeqCst) <= last + 1, "one probe may have been under way");
    supervisor.stop().await;
}
