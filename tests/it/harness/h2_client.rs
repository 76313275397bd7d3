//! An HTTP/2 client with prior knowledge.

use super::{DEADLINE, runtime};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A client on one HTTP/2 connection.
pub struct H2Client {
    sender: SendRequest<Bytes>,
}

/// A whole response.
#[derive(Debug)]
pub struct H2Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    /// Whether the stream ended with the head.
    pub head_only: bool,
}

impl H2Response {
    /// A header, or a trailer of the same name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).or_else(|| self.trailers.get(name)).and_then(|value| value.to_str().ok())
    }
}

impl H2Client {
    pub fn connect(addr: SocketAddr) -> Self {
        H2Client::over(runtime().block_on(TcpStream::connect(addr)).unwrap())
    }

    /// The same over a connection that is there.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let sender = runtime().block_on(async {
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        H2Client { sender }
    }

    pub fn get(&self, uri: &str) -> H2Response {
        self.send(Request::get(uri).body(()).unwrap(), b"")
    }

    /// Sends a whole request, of which `uri` is absolute, and reads the whole response.
    pub fn send(&self, request: Request<()>, body: &[u8]) -> H2Response {
        self.try_send(request, body).unwrap_or_else(|error| panic!("HTTP/2 request: {error}"))
    }

    /// The same for requests that may end in a stream error.
    pub fn try_send(&self, request: Request<()>, body: &[u8]) -> Result<H2Response, h2::Error> {
        let body = Bytes::copy_from_slice(body);
        let exchange = async {
            let mut sender = self.sender.clone().ready().await?;
            let (response, mut stream) = sender.send_request(request, body.is_empty())?;
            if !body.is_empty() {
                stream.send_data(body, true)?;
            }
            read(response.await?).await
        };
        runtime().block_on(async { timeout(DEADLINE, exchange).await.expect("an HTTP/2 response in time") })
    }

    /// Sends a request with the beginning of a body that never ends, and reads the whole response.
    pub fn begin(&self, request: Request<()>, body: &[u8]) -> H2Response {
        let body = Bytes::copy_from_slice(body);
        let exchange = async {
            let mut sender = self.sender.clone().ready().await?;
            let (response, mut stream) = sender.send_request(request, false)?;
            stream.send_data(body, false)?;
            let response = read(response.await?).await;
            drop(stream);
            response
        };
        let response = runtime()
            .block_on(async { timeout(DEADLINE, exchange).await.expect("an HTTP/2 response in time") });
        response.unwrap_or_else(|error| panic!("HTTP/2 request: {error}"))
    }

    /// Sends several requests at once over the one connection.
    pub fn send_all(&self, requests: Vec<Request<()>>) -> Vec<H2Response> {
        let one = |request: Request<()>| {
            let sender = self.sender.clone();
            async move {
                let (response, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
                read(response.await.unwrap()).await.unwrap()
            }
        };
        runtime().block_on(async {
            let running: Vec<_> = requests.into_iter().map(|request| tokio::spawn(one(request))).collect();
            let mut responses = Vec::new();
            for response in running {
                responses
                    .push(timeout(DEADLINE, response).await.expect("an HTTP/2 response in time").unwrap());
            }
            responses
        })
    }
}

async fn read(response: http::Response<h2::RecvStream>) -> Result<H2Response, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let head_only = stream.is_end_stream();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok(H2Response { status: head.status.as_u16(), headers: head.headers, body, trailers, head_only })
}
