//! A cleartext HTTP/2 server with prior knowledge: plain answers, trailers, gRPC and its health service.

use super::runtime;
use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

type Script = dyn Fn(&Request<Vec<u8>>) -> H2Answer + Send + Sync;

/// One answer: headers, one body, trailers.
#[derive(Clone, Debug, Default)]
pub struct H2Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl H2Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        H2Answer { status: 200, body: body.into(), ..H2Answer::default() }
    }

    /// A gRPC answer with one message and its status in the trailers.
    pub fn grpc(message: &[u8], status: u32) -> Self {
        let answer = H2Answer::ok(grpc_message(message)).header("content-type", "application/grpc");
        answer.trailer("grpc-status", &status.to_string())
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    pub fn trailer(mut self, name: &'static str, value: &str) -> Self {
        self.trailers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }
}

/// A message in gRPC's length-prefixed framing, uncompressed.
pub fn grpc_message(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Request<Vec<u8>>>>,
    connections: AtomicUsize,
    serving: AtomicBool,
    health_checks: AtomicUsize,
}

/// A running HTTP/2 server.
pub struct H2Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl H2Upstream {
    /// Answers every request with what `script` says; `grpc.health.v1.Health/Check` is answered by itself.
    pub fn start(script: impl Fn(&Request<Vec<u8>>) -> H2Answer + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            serving: AtomicBool::new(true),
            health_checks: AtomicUsize::new(0),
        });
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = runtime().spawn(accept(listener, Arc::clone(&shared)));
        H2Upstream { addr, shared, accepting }
    }

    /// Echoes the message of a gRPC call.
    pub fn grpc_echo() -> Self {
        H2Upstream::start(|request| H2Answer::grpc(request.body().get(5..).unwrap_or_default(), 0))
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request so far, health checks apart.
    pub fn requests(&self) -> Vec<Request<Vec<u8>>> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many connections carried an HTTP/2 preface.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Answers health checks with SERVING or NOT_SERVING from now on.
    pub fn serving(&self, serving: bool) {
        self.shared.serving.store(serving, Ordering::SeqCst);
    }

    /// How many health checks have been answered.
    pub fn health_checks(&self) -> usize {
        self.shared.health_checks.load(Ordering::SeqCst)
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    while let Some(Ok((request, respond))) = connection.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // An error here is a gateway that went away: the test looks at the other end.
            let _gone = answer(request, respond, &shared).await;
        });
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let request = Request::from_parts(head, body);
    let answer = if request.uri().path() == HEALTH_CHECK {
        shared.health_checks.fetch_add(1, Ordering::SeqCst);
        // HealthCheckResponse { status = 1: SERVING (1) or NOT_SERVING (2) }
        H2Answer::grpc(&[0x08, if shared.serving.load(Ordering::SeqCst) { 1 } else { 2 }], 0)
    } else {
        shared.requests.lock().unwrap().push(request.clone());
        // The script may wait at a gate.
        tokio::task::block_in_place(|| (shared.script)(&request))
    };
    send(answer, &mut respond)
}

fn send(answer: H2Answer, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(answer.status).unwrap();
    *head.headers_mut() = answer.headers;
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(Bytes::from(answer.body), answer.trailers.is_empty())?;
    if !answer.trailers.is_empty() {
        stream.send_trailers(answer.trailers)?;
    }
    Ok(())
}
