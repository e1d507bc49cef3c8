//! A client that speaks to a router without a socket, as if from 127.0.0.1 unless a test says otherwise.

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tower::ServiceExt as _;

/// Sends requests to a router.
#[derive(Debug, Clone)]
pub struct Client {
    router: Router,
    peer: IpAddr,
}

/// A request that is being put together.
#[derive(Debug)]
pub struct Request {
    router: Router,
    request: http::Request<Body>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub bytes: Bytes,
    /// Its body as JSON; null if it is none.
    pub json: Value,
}

/// An answer whose body is yet to be read.
#[derive(Debug)]
pub struct OpenReply {
    /// Its status.
    pub status: StatusCode,
    body: Body,
}

impl Client {
    /// A client of `router`.
    pub fn new(router: Router) -> Self {
        Self { router, peer: Ipv4Addr::LOCALHOST.into() }
    }

    /// The same client at another address.
    ///
    /// # Panics
    /// When `address` is none.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self { router: self.router.clone(), peer: address.parse().expect("a test names a valid address") }
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    /// A POST with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Request {
        self.request(Method::POST, path).body("application/json", body.to_string())
    }

    /// A request without a body.
    ///
    /// # Panics
    /// When `path` is no path.
    pub fn request(&self, method: Method, path: &str) -> Request {
        let peer = SocketAddr::new(self.peer, 50_000);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .extension(ConnectInfo(peer))
            .body(Body::empty())
            .expect("a test names a valid path");
        Request { router: self.router.clone(), request }
    }
}

impl Request {
    /// With a bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// With one more header.
    ///
    /// # Panics
    /// When it is no header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a test names a valid header");
        self.request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a valid value"));
        self
    }

    /// With any body.
    #[must_use]
    pub fn body(mut self, media_type: &str, body: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = Body::from(body.into());
        self.header(header::CONTENT_TYPE.as_str(), media_type)
    }

    /// Sends it, and leaves the answer's body to be read piece by piece.
    pub async fn open(self) -> OpenReply {
        let Ok(response) = self.router.oneshot(self.request).await;
        OpenReply { status: response.status(), body: response.into_body() }
    }

    /// Sends it.
    ///
    /// # Panics
    /// When the answer's body breaks off.
    pub async fn send(self) -> Reply {
        let Ok(response) = self.router.oneshot(self.request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("the answer arrives whole").to_bytes();
        let json = serde_json::from_slice(&bytes).unwrap_or_default();
        Reply { status: parts.status, headers: parts.headers, bytes, json }
    }
}

impl OpenReply {
    /// The next piece; none after the last.
    ///
    /// # Errors
    /// When the body breaks off.
    pub async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        let frame = self.body.frame().await?;
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }
}

impl Reply {
    /// A text at a JSON Pointer; empty if there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// An integer at a JSON Pointer.
    ///
    /// # Panics
    /// When there is none.
    pub fn integer(&self, pointer: &str) -> i64 {
        let found = self.json.pointer(pointer).and_then(Value::as_i64);
        found.unwrap_or_else(|| panic!("no integer at {pointer} of {}", self.json))
    }

    /// The code of a problem; checks that the answer is one, and whole.
    ///
    /// # Panics
    /// When it is not.
    pub fn problem(&self) -> &str {
        let media_type = self.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        assert_eq!(media_type, Some(&b"application/problem+json"[..]), "{} {}", self.status, self.json);
        for member in ["type", "title", "detail", "instance", "code", "message", "error"] {
            assert!(!self.text(&format!("/{member}")).is_empty(), "no {member} in {}", self.json);
        }
        assert_eq!(self.integer("/status"), i64::from(self.status.as_u16()));
        assert_eq!(self.integer("/statusCode"), i64::from(self.status.as_u16()));
        self.text("/code")
    }
}
