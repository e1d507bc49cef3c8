//! A Redis of one test's own, on a Unix socket. It ends with the test.

use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// A running `redis-server` that keeps nothing on disk.
#[derive(Debug)]
pub struct RedisServer {
    process: Child,
    folder: PathBuf,
}

impl RedisServer {
    /// Starts one and waits until it listens.
    ///
    /// # Panics
    /// When there is no `redis-server` to start: a test that can't run has failed.
    pub fn start() -> Self {
        let mut name = [0; 8];
        SystemRng.fill(&mut name);
        let folder = std::env::temp_dir().join(format!("mana-redis-{:016x}", u64::from_be_bytes(name)));
        std::fs::create_dir(&folder).expect("a temporary folder can be made");
        let mut server = Self { process: launch(&folder), folder };
        server.await_socket();
        server
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Ends it at once, with all it has.
    ///
    /// # Panics
    /// When it can't be ended.
    pub fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
        std::fs::remove_file(self.socket()).expect("it listened");
    }

    /// Starts it anew at the same place, empty.
    pub fn restart(&mut self) {
        self.process = launch(&self.folder);
        self.await_socket();
    }

    /// Every key with the milliseconds until it ends; negative for one that never does.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn keys_with_ttl(&self) -> Vec<(String, i64)> {
        let mut found = Vec::new();
        for key in self.ask("KEYS *\r\n").await {
            let ttl = self.ask(&format!("PTTL {key}\r\n")).await;
            let ttl = ttl.first().and_then(|line| line.strip_prefix(':')?.parse().ok());
            found.push((key, ttl.expect("a number")));
        }
        found
    }

    /// The texts of an answer to an inline command, without what frames them.
    async fn ask(&self, command: &str) -> Vec<String> {
        let mut stream = BufReader::new(UnixStream::connect(self.socket()).await.expect("it listens"));
        stream.write_all(command.as_bytes()).await.expect("it reads");
        let mut head = String::new();
        stream.read_line(&mut head).await.expect("it answers");
        let Some(count) = head.trim_end().strip_prefix('*') else {
            return vec![head.trim_end().to_owned()];
        };
        let mut texts = Vec::new();
        for _ in 0..count.parse::<usize>().expect("a number of texts") {
            let mut length = String::new();
            stream.read_line(&mut length).await.expect("a length");
            let length = length.trim_end().trim_start_matches('$').parse().expect("a length");
            let mut text = vec![0; length];
            stream.read_exact(&mut text).await.expect("a text");
            stream.read_line(&mut String::new()).await.expect("its end");
            texts.push(String::from_utf8(text).expect("keys are text"));
        }
        texts
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    fn await_socket(&mut self) {
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let ended = self.process.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "redis-server ended: {ended:?}");
            assert!(begun.elapsed() < Duration::from_secs(20), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Fails when the test has ended it itself, or the folder is gone, which is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn launch(folder: &std::path::Path) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(folder.join("redis.sock"))
        .arg("--dir")
        .arg(folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("tests need redis-server (apt-get install redis-server): {error}"))
}
