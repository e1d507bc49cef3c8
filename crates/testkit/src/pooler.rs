//! PgBouncer between the tests and their server, in transaction mode and with fewer connections than a test has clients. It
//! ends with the process of the tests, killed or not.

use mana_kernel::Rng as _;
use mana_platform::SystemRng;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Only names the socket.
pub(crate) const PORT: u16 = 6432;
/// Of each database.
const CONNECTIONS: u32 = 2;

/// A running PgBouncer.
#[derive(Debug)]
pub(crate) struct Pooler {
    pub(crate) folder: PathBuf,
    /// Whether it keeps the prepared statements of its clients apart.
    pub(crate) keeps_apart: bool,
    /// It reads from here, and ends when there is nothing more to come.
    _life: ChildStdin,
}

impl Pooler {
    /// Starts one before the server whose socket is in `sockets`, as the user that this server runs as: it refuses to be root.
    /// One that can't keep prepared statements apart is not told to.
    pub(crate) fn start(sockets: &Path, user: &str, password: &str, keeps_apart: bool) -> Self {
        let mut name = [0; 8];
        SystemRng.fill(&mut name);
        let folder = std::env::temp_dir().join(format!("mana-pooler-{:016x}", u64::from_be_bytes(name)));
        fs::create_dir(&folder).expect("a temporary folder can be made");
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("it is ours");
        let users = folder.join("users.txt");
        fs::write(&users, format!("\"{user}\" \"{password}\"\n")).expect("it can be written");
        let mut settings = format!(
            "[databases]\n* = host={}\n[pgbouncer]\nunix_socket_dir = {}\nlisten_port = {PORT}\npool_mode = transaction\n\
             auth_type = scram-sha-256\nauth_file = {}\ndefault_pool_size = {CONNECTIONS}\nmax_client_conn = 5000\n\
             server_idle_timeout = 5\n",
            sockets.display(),
            folder.display(),
            users.display(),
        );
        let can_keep_apart = keeps_statements_apart();
        assert!(can_keep_apart || !keeps_apart, "prepared statements are kept apart from PgBouncer 1.21 on");
        if can_keep_apart {
            let kept = if keeps_apart { 200 } else { 0 };
            // Writing to a String can't fail.
            let _ = writeln!(settings, "max_prepared_statements = {kept}");
        }
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, settings).expect("it can be written");
        let owner = fs::metadata(sockets).expect("the server runs");
        for path in [&folder, &users, &file] {
            chown(path, Some(owner.uid()), Some(owner.gid())).expect("root may give away, others keep");
        }
        let life = Command::new("sh")
            .args(["-c", "pgbouncer -q \"$1/pgbouncer.ini\" & read -r _; kill $!; wait; rm -rf \"$1\"", "sh"])
            .arg(&folder)
            .uid(owner.uid())
            .gid(owner.gid())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell is there")
            .stdin
            .take()
            .expect("it was asked for");
        let pooler = Self { folder, keeps_apart, _life: life };
        pooler.await_socket();
        pooler
    }

    fn await_socket(&self) {
        let (begun, socket) = (Instant::now(), self.folder.join(format!(".s.PGSQL.{PORT}")));
        while UnixStream::connect(&socket).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "pgbouncer does not listen (apt-get install pgbouncer)"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether the PgBouncer of this machine can keep its clients' prepared statements apart: from 1.21 on.
///
/// # Panics
/// When there is none.
pub fn keeps_statements_apart() -> bool {
    let output = Command::new("pgbouncer").arg("--version").output();
    let output = output.expect("pgbouncer is installed (apt-get install pgbouncer)").stdout;
    let version = String::from_utf8_lossy(&output);
    let numbers = version.lines().next().and_then(|line| line.strip_prefix("PgBouncer "));
    let mut numbers = numbers.expect("it says its version").split('.').map(str::parse::<u32>);
    let mut number = || numbers.next().and_then(Result::ok);
    (number(), number()) >= (Some(1), Some(21))
}
