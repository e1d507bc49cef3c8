//! PgBouncer before the tests' PostgreSQL, in transaction mode, with fewer connections than there are clients.

use crate::cluster::{Cluster, SERVICE_PASSWORD, SERVICE_PASSWORD_IN_URL};
use crate::process::{Home, free_port, poll};
use mana_testkit::keeps_statements_apart;
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running PgBouncer; it ends with the test.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    child: Child,
    port: u16,
    stderr: PathBuf,
}

impl PgBouncer {
    /// Starts it, as the user that PostgreSQL runs as: it refuses to be root. It does not keep prepared statements apart, as
    /// no version before 1.21 can, and the next few only do when told.
    pub(crate) fn start(home: &Home, cluster: &Cluster) -> Self {
        let (port, url) = (free_port(), cluster.service_url("mana"));
        let (_, sockets) = url.split_once("?host=").unwrap();
        let prepared = if keeps_statements_apart() { "max_prepared_statements = 0\n" } else { "" };
        let (owner, password) = owner_of(cluster);
        let users = format!("\"mana_service\" \"{SERVICE_PASSWORD}\"\n\"{owner}\" \"{password}\"\n");
        let users = home.file("users.txt", &users);
        let settings = home.file(
            "pgbouncer.ini",
            &format!(
                "[databases]\nmana = host={} dbname=mana\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
                 default_pool_size = 2\n{prepared}",
                sockets,
                users.display(),
            ),
        );
        let owner = fs::metadata(sockets).unwrap();
        let stderr = home.path().join("pgbouncer.err");
        let mut command = Command::new("pgbouncer");
        command.arg(&settings).uid(owner.uid()).gid(owner.gid());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr).unwrap());
        for file in [&users, &settings] {
            chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let child = command.spawn().expect("pgbouncer is installed (apt-get install pgbouncer)");
        let mut bouncer = Self { child, port, stderr };
        poll(Duration::from_secs(20), "a PgBouncer that listens", || {
            let ended = bouncer.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", bouncer.log());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        bouncer
    }

    /// For `DATABASE_URL`.
    pub(crate) fn service_url(&self) -> String {
        format!("postgres://mana_service:{SERVICE_PASSWORD_IN_URL}@127.0.0.1:{}/mana", self.port)
    }

    /// For `DATABASE_OWNER_URL`, where it does not belong.
    pub(crate) fn owner_url(&self, cluster: &Cluster) -> String {
        let (owner, password) = owner_of(cluster);
        format!("postgres://{owner}:{password}@127.0.0.1:{}/mana", self.port)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }
}

/// Name and password.
fn owner_of(cluster: &Cluster) -> (String, String) {
    let url = cluster.owner_url("mana");
    let login = url.strip_prefix("postgres://").and_then(|rest| rest.split_once('@')).unwrap().0;
    let (name, password) = login.split_once(':').unwrap();
    (name.to_owned(), password.to_owned())
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // Fails when it has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
