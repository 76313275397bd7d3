//! Limits that several gateways count together in Redis, and what becomes of requests when it is slow, gone or back.

use crate::harness::{DEADLINE, Gateway, Plan, Redis, Reserved, Response, assert_eventually};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CONFIG: &str = r#"
version: 1
listeners: { web: { bind: "127.0.0.1:0" } }
stores: { local: { quotas: none }, redis: { url: "{{url}}", timeout: {{timeout}} } }
defaults: { auth: public, limits_backend: { store: redis, {{backend}} } }
auth: { keys: { api_key: {} } }
plans: { free: { quota: { requests: 5/month } } }
consumers: { ann: { plan: free, keys: "sha256:6f31304cdfd0a3a6362bffbc6dc4f33ecb20221b84f79cf0137b7dc0f5d3a616" } }
apis:
  shop:
    routes:
      refilled: { match: /refilled, limits: 50/10s burst 50 per global, to: { respond: { text: ok } } }
      fifty: { match: /fifty, limits: 50/d per global, to: { respond: { text: ok } } }
      three: { match: /three, limits: 3/d per header:x-key, to: { respond: { text: ok } } }
      twenty: { match: /twenty, limits: 20/h burst 20 per header:x-key, to: { respond: { text: ok } } }
      quota: { match: /quota, auth: keys, to: { respond: { text: ok } } }
"#;

/// Long enough for any answer on a busy machine: what is tested with it is not the time-out.
const PATIENT: &str = "10s";

fn plan(url: &str, timeout: &str, backend: &str) -> Plan {
    Plan::new(CONFIG).with("url", url).with("timeout", timeout).with("backend", backend)
}

fn is_up(gateway: &Gateway) -> bool {
    gateway.metric("tollgate_redis_up") > 0.0
}

/// Starts a gateway and waits until it counts in Redis.
fn start(plan: Plan) -> Gateway {
    let gateway = plan.start();
    wait_up(&gateway);
    gateway
}

fn wait_up(gateway: &Gateway) {
    assert_eventually(DEADLINE, "the gateway has a link to Redis", || is_up(gateway));
}

fn is_ready(gateway: &Gateway) -> bool {
    gateway.ask_admin("/readyz").status == 200
}

fn ask(gateway: &Gateway, path: &str, key: &str) -> Response {
    gateway.client().request("GET", path).header("x-key", key).header("x-api-key", "daily").send()
}

/// How many counters of the route `three` there are.
fn counters(redis: &Redis) -> usize {
    redis.cli(&["--raw", "keys", "*shop.three*"]).lines().filter(|line| !line.is_empty()).count()
}

/// What is left, by `RateLimit`.
fn left(response: &Response) -> Option<u64> {
    let (_, rest) = response.header("ratelimit")?.split_once(";r=")?;
    rest.split(';').next()?.parse().ok()
}

/// Four clients on two gateways, each with so many requests; gives how many passed.
fn storm(gateways: [&Gateway; 2], path: &str, each: usize) -> usize {
    let passed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for gateway in [gateways[0], gateways[1], gateways[0], gateways[1]] {
            scope.spawn(|| {
                let mut client = gateway.client();
                for _ in 0..each {
                    let response = client.request("GET", path).header("x-key", "storm").send();
                    match response.status {
                        200 => passed.fetch_add(1, Ordering::Relaxed),
                        429 => continue,
                        other => panic!("{other}: {}", response.text()),
                    };
                }
            });
        }
    });
    passed.into_inner()
}

#[test]
fn two_gateways_let_no_more_through_than_one() {
    let redis = Redis::start();
    let [one, two] = [(); 2].map(|()| start(plan(&redis.url(), PATIENT, "mode: exact")));
    assert_eq!(storm([&one, &two], "/fifty", 100), 50);
    let began = Instant::now();
    let passed = storm([&one, &two], "/refilled", 100);
    // 50 at once, and one more every 200 ms.
    let most = 50 + began.elapsed().as_millis() / 200 + 1;
    assert!((50..=most).contains(&(passed as u128)), "{passed} passed, at most {most} may");
    for gateway in [&one, &two] {
        assert_eq!(gateway.metric("tollgate_limit_backend_errors_total") as u64, 0);
    }
}

#[test]
fn quotas_are_one_for_all_gateways() {
    let redis = Redis::start();
    let [one, two] = [(); 2].map(|()| start(plan(&redis.url(), PATIENT, "mode: exact")));
    let gateways = [&one, &two, &two, &one, &one];
    let lefts: Vec<_> = gateways.iter().map(|gateway| left(&ask(gateway, "/quota", "a")).unwrap()).collect();
    assert_eq!(lefts, [4, 3, 2, 1, 0]);
    assert_eq!([&one, &two].map(|gateway| ask(gateway, "/quota", "a").status), [429, 429]);
    drop((one, two));
    let again = start(plan(&redis.url(), PATIENT, "mode: exact"));
    assert_eq!(ask(&again, "/quota", "a").status, 429, "no gateway keeps it");
}

#[test]
fn fast_gateways_stay_within_the_bound_that_check_tells() {
    let redis = Redis::start();
    let fast = || plan(&redis.url(), PATIENT, "mode: fast, sync: 100ms, nodes: 2");
    let said = fast().run(&["check", "-c", "tollgate.yaml", "--no-color"]);
    let bound = regex::Regex::new(r"20/h per header:x-key: (\d+)").unwrap();
    let bound = bound.captures(&said.stderr).unwrap_or_else(|| panic!("{said:#?}"));
    let bound: usize = bound[1].parse().unwrap();
    let [one, two] = [(); 2].map(|()| start(fast()));
    let passed = storm([&one, &two], "/twenty", 100);
    assert!((20..=20 + bound).contains(&passed), "{passed} passed of 20, {bound} more may");
    let both = |path: &str, key: &str| [&one, &two].map(|gateway| ask(gateway, path, key).status);
    // What one grants the other hears of.
    assert_eq!([(); 3].map(|()| ask(&one, "/three", "a").status), [200; 3]);
    assert_eventually(DEADLINE, "the other gateway knows", || ask(&two, "/three", "a").status == 429);
    assert_eq!(both("/three", "a"), [429, 429]);
}

/// Redis is killed under a gateway; `during` is what three, four and more requests then get. When it is back, so is the count.
fn killed(on_failure: &str, during: impl Fn(&Gateway)) {
    let redis = Redis::start();
    let gateway = start(plan(&redis.url(), PATIENT, &format!("on_failure: {on_failure}")));
    assert_eq!(left(&ask(&gateway, "/three", "a")), Some(2));
    redis.kill();
    during(&gateway);
    assert!(is_ready(&gateway), "a gateway without Redis is ready");
    assert_eventually(DEADLINE, "it is known to be gone", || !is_up(&gateway));
    assert!(gateway.metric("tollgate_limit_backend_errors_total") > 0.0);
    redis.up();
    wait_up(&gateway);
    // The new server has counted nothing.
    assert_eq!(left(&ask(&gateway, "/three", "b")), Some(2));
    assert_eq!(counters(&redis), 1, "the count is there");
    assert!(is_ready(&gateway));
    for said in ["trying again", "works again"] {
        assert_eventually(DEADLINE, said, || gateway.stderr().contains(said));
    }
}

#[test]
fn without_redis_each_gateway_counts_alone() {
    killed("local", |gateway| {
        let statuses = [(); 5].map(|()| ask(gateway, "/three", "a").status);
        assert_eq!(statuses, [200, 200, 200, 429, 429]);
    });
}

#[test]
fn without_redis_everything_may_pass() {
    killed("allow", |gateway| {
        for _ in 0..8 {
            let response = ask(gateway, "/three", "a");
            assert_eq!((response.status, response.header("ratelimit")), (200, None));
        }
    });
}

#[test]
fn without_redis_limited_routes_may_refuse() {
    killed("deny", |gateway| {
        for _ in 0..8 {
            let response = ask(gateway, "/three", "a");
            assert_eq!((response.status, response.problem_code().as_str()), (503, "limits-unavailable"));
            assert_eq!(
                response.json()["type"],
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            );
            assert!(response.header("retry-after").is_some());
        }
    });
}

#[test]
fn a_paused_redis_holds_up_nobody() {
    let redis = Redis::start();
    let gateway = start(plan(&redis.url(), "50ms", "on_failure: local"));
    redis.pause();
    let timed = || {
        let began = Instant::now();
        assert!(matches!(ask(&gateway, "/three", "a").status, 200 | 429));
        began.elapsed()
    };
    // The time-out is 50 ms; the rest is for a busy machine.
    for _ in 0..30 {
        let took = timed();
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
    assert_eventually(DEADLINE, "the breaker opens", || {
        timed();
        !is_up(&gateway)
    });
    assert!(is_ready(&gateway));
    assert!(gateway.metric("tollgate_limit_backend_errors_total{reason=\"timeout\"}") > 0.0);
    let began = Instant::now();
    (0..40).for_each(|_| assert_eq!(ask(&gateway, "/three", "a").status, 429));
    // Forty time-outs would be two seconds.
    assert!(began.elapsed() < Duration::from_secs(1), "an open breaker asks nobody: {:?}", began.elapsed());
    redis.go_on();
    wait_up(&gateway);
    // An answer later than 50 ms is none: this waits until one comes in time.
    assert_eventually(DEADLINE, "it counts in Redis again", || {
        ask(&gateway, "/three", "b");
        counters(&redis) > 0
    });
    assert!(is_ready(&gateway));
}

#[test]
fn a_gateway_starts_without_redis_and_finds_it_later() {
    let redis = Redis::down(&[]);
    let gateway = plan(&redis.url(), PATIENT, "on_failure: local").start();
    assert!(is_ready(&gateway) && !is_up(&gateway));
    assert_eq!([(); 4].map(|()| ask(&gateway, "/three", "a").status), [200, 200, 200, 429]);
    redis.up();
    wait_up(&gateway);
    assert_eq!(left(&ask(&gateway, "/three", "a")), Some(2), "now Redis counts");
}

#[test]
fn a_wrong_password_is_told_and_never_shown() {
    let redis = Redis::with(&["--requirepass", "right-s3cret"]);
    let url = |password: &str| format!("redis://{password}127.0.0.1:{}", redis.port());
    for (password, said) in [(":wrong-s3cret@", "Password authentication failed"), ("", "NOAUTH")] {
        let gateway = plan(&url(password), PATIENT, "on_failure: local").start();
        let line =
            || gateway.stderr().lines().find(|line| line.contains("redis connection 1: ")).map(str::to_owned);
        let line = crate::harness::eventually(DEADLINE, "a line about Redis", line);
        assert!(line.contains(said) && line.contains("trying again"), "{line}");
        assert_eq!(ask(&gateway, "/three", "a").status, 200, "it counts alone");
        assert!(!is_up(&gateway) && !gateway.stderr().contains("s3cret"));
        let shown = gateway.plan().run(&["config", "show", "-c", "tollgate.yaml"]);
        assert!(shown.code == 0 && !shown.stdout.contains("s3cret"), "{shown:#?}");
    }
    let gateway = start(plan(&url(":right-s3cret@"), PATIENT, "on_failure: deny"));
    assert_eq!(ask(&gateway, "/three", "a").status, 200);
    assert!(!gateway.stderr().contains("s3cret"));
}

#[test]
fn a_cluster_counts_as_one() {
    // The port of the nodes' own talk would be the port and 10000, which may be none.
    let buses = [(); 3].map(|()| Reserved::any());
    let nodes = [0, 1, 2].map(|node: usize| {
        let bus = buses[node].addr().port().to_string();
        let (file, settings) = (format!("nodes-{bus}.conf"), ["--cluster-enabled", "yes", "--cluster-port"]);
        let settings: Vec<&str> =
            settings.into_iter().chain([&*bus, "--cluster-config-file", &file]).collect();
        Redis::with(&settings)
    });
    let addresses = nodes.each_ref().map(|node| format!("127.0.0.1:{}", node.port()));
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(&addresses).args(["--cluster-replicas", "0", "--cluster-yes"]);
    let created = create.stdin(Stdio::null()).output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    assert_eventually(DEADLINE, "the cluster is whole", || {
        nodes.iter().all(|node| node.cli(&["cluster", "info"]).contains("cluster_state:ok"))
    });
    let url = format!("redis+cluster://{}", addresses.join(","));
    let [one, two] = [(); 2].map(|()| start(plan(&url, PATIENT, "mode: exact")));
    assert_eq!(storm([&one, &two], "/fifty", 50), 50);
    assert_eq!(
        [ask(&one, "/three", "a"), ask(&two, "/three", "a")].map(|response| left(&response)),
        [Some(2), Some(1)]
    );
}

#[test]
fn sentinels_lead_to_the_new_master() {
    let master = Redis::start();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    assert_eventually(DEADLINE, "the replica follows", || {
        replica.cli(&["info", "replication"]).contains("master_link_status:up")
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sentinel.conf");
    let settings = format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
        master.port()
    );
    std::fs::write(&file, settings).unwrap();
    let sentinel = Redis::with(&[file.to_str().unwrap(), "--sentinel"]);
    assert_eventually(DEADLINE, "the sentinel knows the replica", || {
        sentinel.cli(&["sentinel", "replicas", "main"]).contains(&replica.port().to_string())
    });
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port());
    let gateway = start(plan(&url, PATIENT, "on_failure: local"));
    assert_eq!(left(&ask(&gateway, "/three", "a")), Some(2));
    assert_eventually(DEADLINE, "the replica has it", || counters(&replica) == 1);
    master.kill();
    assert_eventually(DEADLINE, "the replica is the master", || {
        replica.cli(&["info", "replication"]).contains("role:master")
    });
    assert_eventually(DEADLINE, "the gateway counts there", || {
        let _counted_somewhere = ask(&gateway, "/three", "b");
        counters(&replica) == 2
    });
    assert_eq!(left(&ask(&gateway, "/three", "a")), Some(1), "what the old master counted still holds");
    assert!(is_ready(&gateway));
}
