//! Two apps of the family, as pages; and what they report.

use crate::process::listen;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

const PAGE: &str = include_str!("apps.html");
const PASSKEYS: &str = include_str!("passkeys.html");

/// A web server of the pages, under whatever host it is asked. It ends with the test's process.
#[derive(Debug)]
pub(crate) struct Apps {
    pub(crate) port: u16,
    reports: Receiver<Value>,
}

impl Apps {
    pub(crate) fn serve() -> Self {
        Self::serve_page(PAGE)
    }

    /// The app that signs in with passkeys.
    pub(crate) fn serve_passkeys() -> Self {
        Self::serve_page(PASSKEYS)
    }

    fn serve_page(page: &'static str) -> Self {
        let listener = listen();
        let port = listener.local_addr().unwrap().port();
        let (reporter, reports) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let reporter = reporter.clone();
                thread::spawn(move || answer(stream, &reporter, page));
            }
        });
        Self { port, reports }
    }

    /// What the pages say in the end; nothing if they don't within the limit.
    pub(crate) fn report(&self, limit: Duration) -> Option<Value> {
        self.reports.recv_timeout(limit).ok()
    }
}

/// One request: a report, or else the page. A browser that goes away in the middle has reported or will be missed.
fn answer(stream: TcpStream, reporter: &Sender<Value>, page: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head).ok()? > 2 {
        let line = head.lines().next_back()?.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    if head.starts_with("POST /report") {
        reporter.send(serde_json::from_slice(&body).ok()?).ok()?;
    }
    let mut stream = stream;
    let headers = "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\nconnection: close\r\n";
    write!(stream, "{headers}content-length: {}\r\n\r\n{page}", page.len()).ok()
}
