//! The binary as a child process, with a folder of its own. Whatever becomes of a test, neither outlives it.

use crate::http::{self, PASSWORD, Reply};
use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use mana_testkit::begin_with_time_left_today;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for a first start on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);
/// What a test takes at most that counts what is due each day, on a busy machine.
pub(crate) const TEST: Duration = Duration::from_mins(1);
/// What a person waits for after Ctrl-C, and what a busy machine may add.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Asks until there is an answer; fails when the time is over.
pub(crate) fn poll<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        // What comes after this counts: a probe may itself be what a busy machine is slow at.
        let asked = begun.elapsed();
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(asked < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A fresh name among the temporary files.
pub(crate) fn fresh_path() -> PathBuf {
    let mut name = [0; 8];
    SystemRng.fill(&mut name);
    std::env::temp_dir().join(format!("mana-binary-{:016x}", u64::from_be_bytes(name)))
}

/// The processes whose command line names `path`.
pub(crate) fn processes_of(path: &Path) -> Vec<u32> {
    let path = path.to_str().unwrap();
    let names_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(path)
    };
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(names_it).collect()
}

/// A process, and then those that it has started itself.
pub(crate) fn processes_under(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status
            .lines()
            .any(|line| line.strip_prefix("PPid:").is_some_and(|pid| pid.trim().parse() == Ok(parent)))
    };
    let entries = fs::read_dir("/proc").unwrap();
    let all = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    std::iter::once(parent).chain(all.filter(is_child)).collect()
}

pub(crate) fn send_signal(signal: &str, processes: &[u32]) {
    let mut kill = Command::new("sh");
    kill.args(["-c", r#"signal=$1; shift; kill -s "$signal" "$@""#, "sh", signal]);
    kill.args(processes.iter().map(u32::to_string)).stderr(Stdio::null());
    kill.status().unwrap();
}

/// A port that nobody listens on, and that no other test was given.
pub(crate) fn free_port() -> u16 {
    listen().local_addr().unwrap().port()
}

/// A listener on such a port: what a test was given may not be listened on yet, or just now not.
pub(crate) fn listen() -> TcpListener {
    static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    // Held until there is another one, or they would come again.
    let mut taken = Vec::new();
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        if GIVEN.lock().unwrap().insert(listener.local_addr().unwrap().port()) {
            return listener;
        }
        taken.push(listener);
    }
}

/// A folder straight under the temporary files that everybody may enter: as root, PostgreSQL runs as another user.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    launches: AtomicU32,
}

impl Home {
    pub(crate) fn new() -> Self {
        let path = fresh_path();
        DirBuilder::new().create(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self { path, launches: AtomicU32::new(0) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where dev mode keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// A folder for temporary files, as a machine has it: open to all.
    pub(crate) fn temporary_files(&self) -> PathBuf {
        let path = self.path.join("tmp");
        if !path.exists() {
            DirBuilder::new().mode(0o700).create(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        }
        path
    }

    /// A file in the folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `mana-core-auth dev` on the data folder, on a free port.
    pub(crate) fn dev(&self) -> Launch {
        // A later start belongs to the day of the first one.
        if !self.data().exists() {
            begin_with_time_left_today(TEST);
        }
        let port = free_port();
        let launch = self.command(&["dev", "--port", &port.to_string(), "--data-dir"]).arg(self.data());
        Launch { port, ..launch }
    }

    /// `mana-core-auth serve` on a free port.
    pub(crate) fn serve(&self) -> Launch {
        let port = free_port();
        Launch { port, ..self.command(&["serve", "--port", &port.to_string()]) }
    }

    /// The binary with nothing in its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Launch {
        self.program(Path::new(env!("CARGO_BIN_EXE_mana-core-auth")), args)
    }

    /// Another copy of the binary.
    pub(crate) fn program(&self, program: &Path, args: &[&str]) -> Launch {
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        let (stdout, stderr) =
            (self.path.join(format!("{number}.out")), self.path.join(format!("{number}.err")));
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", path_variable()).env("HOME", &self.path);
        // Away from the checkout: a default folder for data would land there.
        command.current_dir(&self.path).stdin(Stdio::null());
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        Launch { command, port: 0, stdout, stderr }
    }

    /// Whether nothing runs here any more.
    pub(crate) fn is_quiet(&self) -> bool {
        processes_of(&self.path).is_empty()
    }

    /// Waits for that.
    pub(crate) fn falls_quiet(&self) {
        poll(Duration::from_secs(10), "the end of all processes of the folder", || {
            self.is_quiet().then_some(())
        });
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let begun = Instant::now();
        // Killed twice if need be: between the two, a process may have started another.
        while begun.elapsed() < Duration::from_secs(5) {
            let left = processes_of(&self.path);
            if left.is_empty() && fs::remove_dir_all(&self.path).is_ok() {
                return;
            }
            send_signal("KILL", &left);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one variable that a clean environment needs")]
fn path_variable() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap()
}

/// A start that is being put together.
#[derive(Debug)]
pub(crate) struct Launch {
    command: Command,
    port: u16,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Launch {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// On a port that its arguments name.
    pub(crate) fn at(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// As another user.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.command.uid(id).gid(id);
        self
    }

    /// With a standard output that nobody reads any more, as after `| head`.
    pub(crate) fn unread(mut self) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        self.command.stdout(writer);
        self
    }

    /// With a file as its standard input.
    pub(crate) fn reading(mut self, file: &Path) -> Self {
        self.command.stdin(File::open(file).unwrap());
        self
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(self) -> Server {
        let server = self.spawn();
        server.await_ready();
        server
    }

    /// Starts it.
    pub(crate) fn spawn(mut self) -> Server {
        let child = Mutex::new(self.command.spawn().unwrap());
        Server { child, port: self.port, stdout: self.stdout, stderr: self.stderr }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Done {
        let begun = Instant::now();
        let server = self.spawn();
        let code = server.await_end(START_LIMIT);
        Done { code, stdout: server.stdout(), stderr: server.stderr(), took: begun.elapsed() }
    }
}

/// A running binary.
#[derive(Debug)]
pub(crate) struct Server {
    child: Mutex<Child>,
    pub(crate) port: u16,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Server {
    pub(crate) fn await_ready(&self) {
        poll(START_LIMIT, "an answer of /health/ready", || {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}\n{}\n{}", self.stdout(), self.stderr());
            let reply = http::exchange(self.port, "GET", "/health/ready", "", "").ok()?;
            (reply.status == 200).then_some(())
        });
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// The one-time link that the start printed: its path and query.
    pub(crate) fn claim_link(&self) -> String {
        let stdout = self.stdout();
        let url = format!("http://localhost:{}", self.port);
        let printed =
            stdout.split_whitespace().find_map(|word| word.strip_prefix(&url)?.strip_prefix("/claim-admin"));
        format!("/claim-admin{}", printed.unwrap_or_else(|| panic!("no link in {stdout}")))
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.get_as("", path)
    }

    pub(crate) fn get_as(&self, token: &str, path: &str) -> Reply {
        http::exchange(self.port, "GET", path, token, "").unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_as("", path, body)
    }

    pub(crate) fn post_as(&self, token: &str, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::exchange(self.port, "POST", path, token, &body).unwrap()
    }

    pub(crate) fn register(&self, email: &str) -> Reply {
        let reply = self.post("/api/v1/auth/register", &json!({"email": email, "password": PASSWORD}));
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply
    }

    pub(crate) fn login(&self, email: &str) -> Reply {
        let reply = self.post("/api/v1/auth/login", &json!({"email": email, "password": PASSWORD}));
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply
    }

    /// How much memory it has, in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        let id = self.child.lock().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    pub(crate) fn signal(&self, signal: &str) {
        send_signal(signal, &[self.child.lock().unwrap().id()]);
    }

    /// Its exit code, when it has one.
    pub(crate) fn await_end(&self, limit: Duration) -> Option<i32> {
        poll(limit, "the end of the process", || self.child.lock().unwrap().try_wait().unwrap()).code()
    }

    /// Stops it as a terminal or a service manager does, and checks that it ends well and soon.
    pub(crate) fn stop(self, signal: &str) {
        self.signal(signal);
        self.ends_well();
    }

    /// It was told to stop: it ends well and soon.
    pub(crate) fn ends_well(&self) {
        assert_eq!(self.await_end(STOP_LIMIT), Some(0), "{}", self.stderr());
    }

    /// Kills it.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        // Fails when it has ended, which is as well.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What is left of a process.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Done {
    /// What it printed, when it ended well.
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The sentence that it refused with.
    pub(crate) fn sentence(self) -> String {
        assert!(self.code.is_some_and(|code| code == 1 || code == 2), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        let errors: Vec<_> = self.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        let [sentence] = errors[..] else { panic!("not one sentence: {self:?}") };
        assert!(!sentence.ends_with(".."), "one full stop ends a sentence: {sentence}");
        sentence.to_owned()
    }
}
