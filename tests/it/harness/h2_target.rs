//! An HTTP/2 server that a test drives stream by stream, in cleartext or over TLS.

use super::runtime;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// One request, which has not been answered.
pub struct Call {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

type Serving = Pin<Box<dyn Future<Output = Result<(), h2::Error>> + Send>>;
type Script = dyn Fn(Call) -> Serving + Send + Sync;

/// A running server.
pub struct H2Target {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl H2Target {
    /// Leaves every request to `script`.
    pub fn start<F>(
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> H2Target
    where
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        H2Target::leaving(usize::MAX, tls, script)
    }

    /// The same, but each connection is given up after so many requests (GOAWAY).
    pub fn leaving<F>(
        after: usize,
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> H2Target
    where
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (addr, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let script: Arc<Script> = Arc::new(move |call| Box::pin(script(call)));
        let counted = Arc::clone(&connections);
        let accepting = runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, tls, counted) = (Arc::clone(&script), tls.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, after, &counted, &script).await,
                        Some(config) => match TlsAcceptor::from(config).accept(stream).await {
                            Ok(stream) => serve(stream, after, &counted, &script).await,
                            Err(_refused) => {}
                        },
                    }
                });
            }
        });
        H2Target { addr, connections, accepting }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections spoke HTTP/2.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for H2Target {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    after: usize,
    connections: &AtomicUsize,
    script: &Arc<Script>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    connections.fetch_add(1, Ordering::SeqCst);
    let mut seen = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        // An error here is a gateway that went away: the test looks at the other end.
        tokio::spawn(script(Call { request, respond }));
        seen += 1;
        if seen == after {
            connection.graceful_shutdown();
        }
    }
}
