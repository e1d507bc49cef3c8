//! Takes connections, no more than there may be, and closes those on which no request arrives.

use crate::drain::Drain;
use axum::Router;
use axum::extract::ConnectInfo;
use http::{HeaderValue, header};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use mana_platform::telemetry::Counted;
use std::convert::Infallible;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors and memory come back when something else ends, hardly sooner than this.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// A longer request head is answered 431.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// What one client can take from the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections open at the same time.
    pub(crate) connections: usize,
    /// How long a connection may be without a whole request head: from its start, and again after each answer. So it
    /// bounds idle keep-alive as well: HTTP/1 can't tell a client that rests from one that holds a place.
    pub(crate) header: Duration,
}

/// Serves until `stop` is over, then until every request that has begun is answered. From the beginning of `drain` on, each
/// connection ends with its next answer: a proxy that keeps it could else use it in the moment in which it is closed.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    drain: Drain,
    stop: impl Future<Output = ()>,
) {
    // Without it, the router would be put together anew for every request.
    let router: Router = router.with_state(());
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header).max_buf_size(MAX_HEAD_BYTES);
    let mut stop = pin!(stop);
    metrics::gauge!("http_connections_max").set(u32::try_from(limits.connections).unwrap_or(u32::MAX));
    loop {
        let (stream, peer, place) = tokio::select! {
            connection = accept(&listener, &places) => connection,
            () = &mut stop => break,
        };
        // The head and the body of a small answer are two packets, and the second would wait for the first one's
        // acknowledgement. It fails for a peer that is gone, which the first read tells as well.
        let _ = stream.set_nodelay(true);
        let router = TowerToHyperService::new(router.clone());
        let drain = drain.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let (answer, drain) = (router.call(request), drain.clone());
            async move {
                let mut answer = answer.await?;
                if drain.has_begun() {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        let open = Counted::on(metrics::gauge!("http_connections_open"));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // The client's doing, and without a bound: nothing for the log of a service that runs as it should.
                tracing::debug!(%peer, %error, "connection failed");
            }
            drop((open, place));
        });
    }
    // A load balancer that is refused asks another instance; one that is only kept waiting does not.
    drop(listener);
    connections.shutdown().await;
}

/// The next connection. While there is no place for it, it stays in the kernel's backlog, where it costs no descriptor.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // There is always one in the end: nobody closes the semaphore.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

/// Whether only that one connection failed, before it was accepted.
fn is_of_the_peer(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}
