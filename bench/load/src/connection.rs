//! As little of an HTTP/1.1 client as a measurement needs, because it shares the cores with what it measures.

use memchr::memmem::Finder;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More than most answers have, so that one read takes one whole.
const CHUNK_BYTES: usize = 32 * 1024;

/// A connection that is kept open.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    end_of_head: Finder<'static>,
    length_name: Finder<'static>,
}

/// An answer, read whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(CHUNK_BYTES),
            end_of_head: Finder::new(b"\r\n\r\n"),
            length_name: Finder::new(b"content-length: "),
        })
    }

    /// Sends a request, whole as it is, and reads the answer to its end.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.received.clear();
        let (status, body) = loop {
            self.received.reserve(CHUNK_BYTES);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Some(whole) = self.whole()? {
                break whole;
            }
        };
        let body = self.received.get(body..).unwrap_or_default();
        Ok(Answer { status, body })
    }

    /// Status and start of the body, once all of it is there.
    fn whole(&self) -> Result<Option<(u16, usize)>> {
        let Some(end) = self.end_of_head.find(&self.received) else {
            return Ok(None);
        };
        let head = self.received.get(..end).unwrap_or_default();
        let status = head.get(9..12).and_then(number).ok_or_else(|| not_understood("no status"))?;
        let length = match self.length_name.find(head) {
            Some(place) => {
                head.get(place + 16..).and_then(|text| number(text.split(|&c| c == b'\r').next()?))
            }
            None => None,
        };
        let length = length.ok_or_else(|| not_understood("no content-length"))?;
        let body = end + 4;
        let status = u16::try_from(status).map_err(|_| not_understood("no status"))?;
        Ok((self.received.len() >= body + length).then_some((status, body)))
    }
}

fn not_understood(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The bytes of a POST of JSON.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    post_with("", path, body)
}

/// The bytes of a POST of JSON by whom the access token names.
pub(crate) fn post_as(token: &str, path: &str, body: &str) -> Vec<u8> {
    post_with(&bearer(token), path, body)
}

/// The bytes of a GET.
pub(crate) fn get(path: &str) -> Vec<u8> {
    get_with("", path)
}

/// The bytes of a GET by whom the access token names.
pub(crate) fn get_as(token: &str, path: &str) -> Vec<u8> {
    get_with(&bearer(token), path)
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn post_with(header: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\n{header}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn get_with(header: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_answer_is_read_whole_however_it_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let request = post("/x", "{}");
        let expected = request.clone();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for pieces in [
                &["HTTP/1.1 200 OK\r\ncontent-le", "ngth: 4\r\n\r\nab", "cd"][..],
                &["HTTP/1.1 503 Service Unavailable\r\nx: y\r\ncontent-length: 2\r\n\r\nno"],
                &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"],
            ] {
                let mut received = vec![0; expected.len()];
                stream.read_exact(&mut received).await.unwrap();
                assert_eq!(received, expected);
                for piece in pieces {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut connection = Connection::open(server).await.unwrap();
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!((answer.status, answer.body), (200, &b"abcd"[..]));
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!((answer.status, answer.body), (503, &b"no"[..]));
        assert!(connection.exchange(&request).await.is_err(), "chunks are not read, and said so");
        serving.await.unwrap();
        assert!(connection.exchange(&request).await.is_err(), "the server has hung up");
    }
}
