//! Trust: what is verified, and what is never shared.

use super::*;

struct Authority {
    pem: Arc<[u8]>,
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

fn new_authority() -> Authority {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    Authority { pem: issuer.pem().into_bytes().into(), issuer }
}

/// A TLS server for `app.internal` that demands a client certificate of the same authority if `mutual`.
async fn tls_server(authority: &Authority, mutual: bool) -> SocketAddr {
    use tokio_rustls::rustls::{
        RootCertStore, ServerConfig, pki_types::PrivateKeyDer, server::WebPkiClientVerifier,
    };
    pingora::tls::install_default_crypto_provider();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["app.internal".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &authority.issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let builder = ServerConfig::builder();
    let builder = if mutual {
        builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 4096];
                while stream.read(&mut request).await.unwrap_or(0) > 0 {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    address
}

async fn ask(tls: TlsSpec, address: SocketAddr) -> Result<Answer, ClientError> {
    let mut spec = spec(Balance::RoundRobin, &[(&address.to_string(), 1)]);
    spec.tls = Some(tls);
    spec.connect = Duration::from_secs(5);
    let peer = make(spec).pick(None, &[]).unwrap().peer();
    client().send(&peer, get("app.internal"), None, LIMITS).await
}

#[tokio::test]
async fn a_connection_one_ca_has_verified_is_never_reused_under_another() {
    let (ours, theirs) = (new_authority(), new_authority());
    let address = tls_server(&ours, false).await;
    let with = |ca: &Authority| TlsSpec {
        sni: Some("app.internal".into()),
        ca: Some(ca.pem.clone()),
        ..TlsSpec::default()
    };
    assert_eq!(ask(with(&ours), address).await.unwrap().body, "ok");
    let refused = ask(with(&theirs), address).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Connect(cause) if cause.contains("TLS")), "{refused:?}");
    let by_name = TlsSpec { sni: Some("other.internal".into()), ..with(&ours) };
    assert!(ask(by_name, address).await.is_err(), "the name is verified");
    assert!(
        ask(TlsSpec { sni: None, ..with(&ours) }, address).await.is_err(),
        "the address is no name of it"
    );
    let trusting = TlsSpec { verify: false, ..with(&theirs) };
    assert_eq!(ask(trusting, address).await.unwrap().status, 200);
    assert!(ask(with(&theirs), address).await.is_err(), "and still not after one that trusts anybody");
}

#[tokio::test]
async fn client_certificates_are_presented_and_keep_connections_apart() {
    let authority = new_authority();
    let address = tls_server(&authority, true).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["gateway".to_owned()])
        .unwrap()
        .signed_by(&key, &authority.issuer)
        .unwrap();
    let client_cert =
        ClientCert { cert: cert.pem().into_bytes().into(), key: key.serialize_pem().into_bytes().into() };
    let anonymous =
        TlsSpec { sni: Some("app.internal".into()), ca: Some(authority.pem.clone()), ..TlsSpec::default() };
    let known = TlsSpec { client_cert: Some(client_cert), ..anonymous.clone() };
    assert_eq!(ask(known, address).await.unwrap().body, "ok");
    assert!(ask(anonymous, address).await.is_err(), "the certified connection is not lent out");
}

#[tokio::test]
async fn tcp_checks_make_the_tls_handshake() {
    let (ours, theirs) = (new_authority(), new_authority());
    let address = tls_server(&ours, false).await;
    let with = |ca: &Authority| {
        let mut spec = checked(address, Probe::Tcp);
        spec.health.timeout = Duration::from_secs(5);
        spec.connect = Duration::from_secs(5);
        spec.tls = Some(TlsSpec {
            sni: Some("app.internal".into()),
            ca: Some(ca.pem.clone()),
            ..TlsSpec::default()
        });
        make(spec)
    };
    let (good, bad) = (with(&ours), with(&theirs));
    let supervisors = [run(&good), run(&bad)];
    assert!(good.warm(Duration::from_secs(10)).await && bad.warm(Duration::from_secs(10)).await);
    assert_eq!((good.is_healthy(), bad.is_healthy()), (true, false));
    assert!(reason(&bad).starts_with("TLS handshake failed"), "{}", reason(&bad));
    for supervisor in supervisors {
        supervisor.stop().await;
    }
}
