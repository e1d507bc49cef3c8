//! A collector of traces, as much of one as the exporter meets: it keeps what it is sent, or is in trouble when it is told to be.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    Refuses,
    /// Reads what it is sent, and says nothing.
    Hangs,
}

#[derive(Debug)]
struct Kept {
    mood: Mood,
    heads: Vec<String>,
    bodies: Vec<Vec<u8>>,
}

/// Listens until the test ends.
#[derive(Debug)]
pub(crate) struct Collector(Arc<Mutex<Kept>>);

impl Collector {
    pub(crate) fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let kept = Arc::new(Mutex::new(Kept { mood: Mood::Takes, heads: Vec::new(), bodies: Vec::new() }));
        let shared = Arc::clone(&kept);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self(kept)
    }

    pub(crate) fn turn(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    /// The heads of all requests, in lower case as far as names go.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.0.lock().unwrap().heads.clone()
    }

    /// All bytes that it took.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bodies.concat()
    }

    pub(crate) fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let kept = self.0.lock().unwrap();
        kept.bodies.iter().map(|body| ExportTraceServiceRequest::decode(&body[..]).unwrap()).collect()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

/// The life of a connection.
fn serve(mut stream: TcpStream, kept: &Mutex<Kept>) {
    let mut read = Vec::new();
    loop {
        let Some(end) = position(&read, b"\r\n\r\n") else {
            let mut part = [0; 16_384];
            match stream.read(&mut part) {
                Ok(0) | Err(_) => return,
                Ok(length) => read.extend_from_slice(&part[..length]),
            }
            continue;
        };
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap();
        let body_start = end.saturating_add(4);
        let body_end = body_start.saturating_add(length);
        while read.len() < body_end {
            let mut part = [0; 16_384];
            match stream.read(&mut part) {
                Ok(0) | Err(_) => return,
                Ok(length) => read.extend_from_slice(&part[..length]),
            }
        }
        let rest = read.split_off(body_end);
        let body = read.split_off(body_start);
        read = rest;
        let mood = {
            let mut kept = kept.lock().unwrap();
            if kept.mood == Mood::Takes {
                kept.heads.push(head);
                kept.bodies.push(body);
            }
            kept.mood
        };
        let answer = match mood {
            Mood::Takes => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Mood::Refuses => "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
            Mood::Hangs => continue,
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Whether a text is among the bytes.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    position(bytes, text.as_bytes()).is_some()
}

/// An attribute of a span, as text.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()?;
    if let Value::IntValue(number) = value {
        return Some(number.to_string());
    }
    let Value::StringValue(text) = value else { panic!("neither text nor number: {value:?}") };
    Some(text.clone())
}
