//! A mail server that can fall silent: it goes on to take connections, and says nothing on them.

use crate::process::listen;
use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// In this process, in clear, for clients on this machine. It ends with the test's process.
#[derive(Debug)]
pub(crate) struct MailServer {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_silent: AtomicBool,
    kept_waiting: AtomicUsize,
    /// The ids of the messages that each recipient got.
    received: Mutex<HashMap<String, HashSet<String>>>,
}

impl MailServer {
    pub(crate) fn start() -> Self {
        let listener = listen();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let held = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&held);
                thread::spawn(move || shared.converse(stream));
            }
        });
        Self { port, shared }
    }

    /// On connections that come from now on.
    pub(crate) fn is_silent(&self, is_silent: bool) {
        self.shared.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// Clients that were never answered, in all.
    pub(crate) fn kept_waiting(&self) -> usize {
        self.shared.kept_waiting.load(Ordering::SeqCst)
    }

    /// The mails to somebody. One that was handed over twice under the same id is one.
    pub(crate) fn mails_to(&self, address: &str) -> usize {
        self.shared.received.lock().unwrap().get(address).map_or(0, HashSet::len)
    }
}

impl Shared {
    /// To the end of the connection, whatever ends it.
    fn converse(&self, mut stream: TcpStream) -> Option<()> {
        if self.is_silent.load(Ordering::SeqCst) {
            self.kept_waiting.fetch_add(1, Ordering::SeqCst);
            stream.read_to_end(&mut Vec::new()).ok()?;
            return None;
        }
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let mut say = |line: &str| stream.write_all(format!("{line}\r\n").as_bytes()).ok();
        say("220 test ESMTP")?;
        let mut recipient = String::new();
        loop {
            let line = lines.next()?.ok()?;
            match line.get(..4)? {
                "RCPT" => {
                    recipient = line.split(['<', '>']).nth(1)?.to_owned();
                    say("250 fine")?;
                }
                "DATA" => {
                    say("354 go on")?;
                    let content: Vec<_> =
                        lines.by_ref().map_while(Result::ok).take_while(|line| line != ".").collect();
                    let id = content.iter().find_map(|line| line.strip_prefix("Message-ID: "))?;
                    let mut received = self.received.lock().unwrap();
                    received.entry(recipient.clone()).or_default().insert(id.to_owned());
                    drop(received);
                    say("250 taken")?;
                }
                "QUIT" => return say("221 bye"),
                _ => say("250 fine")?,
            }
        }
    }
}
