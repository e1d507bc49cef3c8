//! Takes connections, no more than there may be, and closes those on which no request arrives.

use crate::drain::Drain;
use crate::places::{Place, Places};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Response};
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
use tokio::task::JoinSet;

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
/// connection ends with its next answer: a proxy that keeps it could else use it in the moment in which it is closed. So it
/// does while places are scarce.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    drain: Drain,
    stop: impl Future<Output = ()>,
) {
    // Without it, the router would be put together anew for every request.
    let router: Router = router.with_state(());
    let places = Places::new(limits.connections);
    let connections = GracefulShutdown::new();
    // Whoever ends this in the middle ends them as well.
    let mut tasks = JoinSet::new();
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
        let place = Arc::new(place);
        let (drain, places, asked) = (drain.clone(), places.clone(), Arc::clone(&place));
        let service = service_fn(move |mut request: Request<Incoming>| {
            asked.is_asked_for_something();
            let is_clear = names_its_host(&request) && has_one_length(request.headers());
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = is_clear.then(|| router.call(request));
            let (drain, places) = (drain.clone(), places.clone());
            async move {
                let mut answer = match answer {
                    Some(answer) => answer.await?,
                    None => unreadable(),
                };
                if drain.has_begun() || places.are_scarce() {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        let open = Counted::on(metrics::gauge!("http_connections_open"));
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    // The client's doing, and without a bound: nothing for the log of a service that runs as it should.
                    tracing::debug!(%peer, %error, "connection failed");
                },
                () = place.dismissed() => tracing::debug!(%peer, "nothing was asked, and the place is needed"),
            }
            drop((open, place));
        });
    }
    // A load balancer that is refused asks another instance; one that is only kept waiting does not.
    drop(listener);
    connections.shutdown().await;
}

/// The next connection. While there is no place for it, it stays in the kernel's backlog, where it costs no descriptor.
async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, Place) {
    let permit = places.wait().await;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, places.take(permit)),
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

/// Whether a request says once, and as an address, which host it is for (RFC 9112, section 3.2). HTTP/1.0 need not say it.
fn names_its_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() == Version::HTTP_10,
        (Some(host), None) => host.to_str().is_ok_and(|host| {
            !host.contains('@') && host.parse::<Authority>().is_ok_and(|authority| authority.as_str() == host)
        }),
        (Some(_), Some(_)) => false,
    }
}

/// Whether all who read the head agree on where the body ends. Of chunks beside a Content-Length hyper takes the chunks and
/// closes behind them; what it still takes besides is a coding under the chunks and chunks in chunks.
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    is_chunked && codings.next().is_none()
}

/// What a head gets that can't be read, from here as from the parser: nothing that depends on which service it was for.
fn unreadable() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Whether only that one connection failed, before it was accepted.
fn is_of_the_peer(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(version: Version, hosts: &[&str]) -> bool {
        let request = Request::builder().version(version);
        let request = hosts.iter().fold(request, |request, host| request.header(header::HOST, *host));
        names_its_host(&request.body(()).unwrap())
    }

    #[test]
    fn a_request_names_its_host_once_and_as_an_address() {
        for good in ["localhost", "localhost:3001", "auth.example.com", "127.0.0.1:1", "[::1]:3001"] {
            assert!(is_taken(Version::HTTP_11, &[good]), "{good}");
        }
        for bad in ["", " ", "a b", "a/b", "a@b", "http://a", "a?b", "a#b", "\u{e4}", "a:b:c", "[::1"] {
            assert!(!is_taken(Version::HTTP_11, &[bad]), "{bad}");
        }
        assert!(!is_taken(Version::HTTP_11, &[]));
        assert!(!is_taken(Version::HTTP_11, &["localhost", "localhost"]));
        assert!(is_taken(Version::HTTP_10, &[]));
        assert!(!is_taken(Version::HTTP_10, &["localhost", "evil.example"]));
    }

    #[test]
    fn chunks_are_named_once_and_alone() {
        let is_taken = |codings: &[&str]| {
            let codings = codings.iter().map(|coding| (header::TRANSFER_ENCODING, coding.parse().unwrap()));
            let mut headers = HeaderMap::new();
            headers.extend(codings);
            has_one_length(&headers)
        };
        assert!(is_taken(&[]) && is_taken(&["chunked"]) && is_taken(&["Chunked"]));
        for bad in
            [&["gzip, chunked"][..], &["chunked, chunked"], &["chunked", "chunked"], &["identity"], &[""]]
        {
            assert!(!is_taken(bad), "{bad:?}");
        }
    }
}
