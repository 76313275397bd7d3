//! Users, TLS, Sentinel and Cluster.

use super::*;
use std::sync::atomic::Ordering;

/// What the documentation says a user needs.
const USER: &str = "gate on >s3cret/@ ~tg:{tollgate}:* \
                    +evalsha +eval +time +get +set +hgetall +hincrby +hdel +pexpire";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_only_the_rights_that_are_needed() {
    let user: Vec<&str> = USER.split_whitespace().collect();
    let server = Server::start(&[&["--user", "default", "off", "--user"], user.as_slice()].concat()).await;
    let url = format!("redis://gate:s3cret%2F%40@127.0.0.1:{}", server.port);
    let (store, _supervisor) = connect(&spec(&url)).await;
    let quota = crate::store::Cycle::Rolling(Duration::from_secs(60));
    let quota = Limit::new("q".into(), Rule::Quota { count: 2, cycle: quota, soft: false });
    let limit = rate("a", 1, 60, 5);
    let demands = [demand(&limit, "k"), demand(&quota, "k")];
    for granted in [true, true, false] {
        assert_eq!(store.take(&demands).await.unwrap()[1].granted, granted);
    }

    let wrong = Arc::new(RedisStore::new(&spec(&url.replace("s3cret", "other"))).unwrap());
    let supervisor = Supervisor::new(Handle::current());
    supervisor.adopt(wrong.tasks());
    assert!(!wrong.ready(Duration::from_millis(300)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_ca_of_our_own() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key, wrong) =
        (dir.path().join("cert.pem"), dir.path().join("key.pem"), dir.path().join("other.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    let port = free_port();
    let (cert_text, key_text) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let tls = ["--tls-port", &port.to_string(), "--tls-cert-file", cert_text, "--tls-key-file", key_text];
    let server = Server::start(
        &[tls.as_slice(), &["--tls-ca-cert-file", cert_text, "--tls-auth-clients", "no"]].concat(),
    )
    .await;

    let mut secure = spec(&format!("rediss://localhost:{port}"));
    secure.ca = Some(Spanned::built_in(cert.clone()));
    let (store, _supervisor) = connect(&secure).await;
    assert!(take(&store, &rate("a", 1, 60, 1), "k").await.unwrap().granted);
    assert!(!take(&store, &rate("a", 1, 60, 1), "k").await.unwrap().granted);

    // Another CA, and a plain connection to a port that speaks TLS.
    secure.ca = Some(Spanned::built_in(wrong));
    for spec in [secure.clone(), spec(&format!("redis://localhost:{port}"))] {
        let store = RedisStore::new(&spec).unwrap();
        let supervisor = Supervisor::new(Handle::current());
        supervisor.adopt(store.tasks());
        assert!(!store.ready(Duration::from_millis(300)).await);
    }
    drop(server);

    secure.ca = Some(Spanned::built_in(key));
    assert!(RedisStore::new(&secure).unwrap_err().contains("no certificate"));
    secure.ca = Some(Spanned::built_in(dir.path().join("nothing.pem")));
    assert!(RedisStore::new(&secure).unwrap_err().contains("nothing.pem"));
}

#[test]
fn documents_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut document::Redis)| {
        let mut spec = spec("redis+cluster://u:hunter2@127.0.0.1:7000");
        change(&mut spec);
        let error = RedisStore::new(&spec).unwrap_err();
        assert!(!error.contains("hunter2"));
        error
    };
    assert!(refused(|spec| spec.prefix = Some("tg:".into())).contains('{'));
    assert!(refused(|spec| spec.prefix = Some("tg:{}{x}".into())).contains('{'));
    let store = RedisStore::new(&spec("redis://u:hunter2@127.0.0.1:7000")).unwrap();
    assert!(!format!("{store:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_whose_slots_move() {
    let options =
        ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000"];
    let nodes = [Server::start(&options).await, Server::start(&options).await, Server::start(&options).await];
    let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let create: Vec<&str> =
        ["--cluster", "create"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
    let made = nodes[0].cli(&[create.as_slice(), &["--cluster-yes"]].concat());
    assert!(made.contains("All 16384 slots covered"), "{made}");
    for node in &nodes {
        until(|| node.cli(&["cluster", "info"]).contains("cluster_state:ok")).await;
    }
    let (store, _supervisor) = connect(&spec(&format!("redis+cluster://{}", addresses.join(",")))).await;
    let (slow, wide) = (rate("slow", 1, 3600, 4), rate("wide", 1, 3600, 100));
    let demands = [demand(&wide, "k"), demand(&slow, "k")];
    for _ in 0..2 {
        assert!(store.take(&demands).await.unwrap().iter().all(|outcome| outcome.granted));
    }

    // The slot, its counters and the probe's key go to another node.
    let slot: usize = nodes[0].cli(&["cluster", "keyslot", "tg:{tollgate}:"]).trim().parse().unwrap();
    let owner = nodes.iter().position(|node| {
        let keys = node.cli(&["cluster", "countkeysinslot", &slot.to_string()]);
        keys.trim() != "0"
    });
    let from = &nodes[owner.unwrap()];
    let to = &nodes[(owner.unwrap() + 1) % 3];
    move_slot(from, to, slot);
    recovered(&store, &rate("free", 1_000_000, 1, 1_000_000)).await;
    for granted in [true, true, false] {
        assert_eq!(store.take(&demands).await.unwrap()[1].granted, granted, "the counter has moved along");
    }
}

fn move_slot(from: &Server, to: &Server, slot: usize) {
    let slot = slot.to_string();
    let ids = (from.cli(&["cluster", "myid"]), to.cli(&["cluster", "myid"]));
    let (from_id, to_id) = (ids.0.trim(), ids.1.trim());
    to.cli(&["cluster", "setslot", &slot, "importing", from_id]);
    from.cli(&["cluster", "setslot", &slot, "migrating", to_id]);
    // By a script, because a name of a key may be no text.
    let moved = from.cli(&[
        "eval",
        &format!(
            "local keys = redis.call('CLUSTER', 'GETKEYSINSLOT', {slot}, 100) \
             return redis.call('MIGRATE', '127.0.0.1', {}, '', 0, 2000, 'KEYS', unpack(keys))",
            to.port
        ),
        "0",
    ]);
    assert!(moved.contains("OK"), "{moved}");
    for node in [to, from] {
        node.cli(&["cluster", "setslot", &slot, "node", to_id]);
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    let came_true = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, came_true).await.expect("the condition never came true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_dies_and_the_sentinels_make_another() {
    let mut master = Server::start(&["--requirepass", "s3cret", "--masterauth", "s3cret"]).await;
    let replica = ["--requirepass", "s3cret", "--masterauth", "s3cret", "--replicaof", "127.0.0.1"];
    let replica = Server::start(&[replica.as_slice(), &[&master.port.to_string()]].concat()).await;
    until(|| master.cli(&["-a", "s3cret", "info", "replication"]).contains("state=online")).await;

    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sentinel.conf");
    let monitor = format!(
        "bind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\nsentinel auth-pass main s3cret\n\
         sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
        master.port
    );
    std::fs::write(&config, monitor).unwrap();
    let sentinel = Server::start(&[config.to_str().unwrap(), "--sentinel", "--port", "PORT"]).await;
    until(|| sentinel.cli(&["sentinel", "master", "main"]).contains("num-slaves\n1")).await;

    let url = format!("redis+sentinel://:s3cret@127.0.0.1:{}/main", sentinel.port);
    let (store, _supervisor) = connect(&spec(&url)).await;
    let limit = rate("a", 1, 3600, 10);
    assert_eq!(take(&store, &limit, "k").await.unwrap().remaining, 9);
    until(|| replica.cli(&["-a", "s3cret", "dbsize"]).trim().parse::<u32>().is_ok_and(|keys| keys >= 2))
        .await;

    master.stop();
    recovered(&store, &rate("free", 1_000_000, 1, 1_000_000)).await;
    assert_eq!(take(&store, &limit, "k").await.unwrap().remaining, 8, "the replica knew it");
    assert!(replica.cli(&["-a", "s3cret", "role"]).contains("master"));
    assert!(store.counters().connected.load(Ordering::Relaxed) >= 2);
}
