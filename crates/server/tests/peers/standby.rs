//! PostgreSQL on two machines, as processes: Patroni beside each decides by etcd which is the primary, keeps the other one
//! synchronous, and has it take over. HAProxy leads to the primary.

use crate::process::{Home, free_port, poll, processes_under, send_signal};
use crate::program::Program;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

const SOON: Duration = Duration::from_mins(2);
/// What Patroni needs to hear that a primary is gone: its smallest.
pub(crate) const LEASE: Duration = Duration::from_secs(20);

/// One machine of the two.
#[derive(Debug)]
struct Member {
    name: &'static str,
    data: PathBuf,
    socket: PathBuf,
    settings: PathBuf,
    port: u16,
    rest_port: u16,
    patroni: Mutex<Option<Program>>,
}

/// Both, with what stands between and before them. Declared in the order in which it stops.
#[derive(Debug)]
pub(crate) struct Pair {
    _balancer: Program,
    members: [Member; 2],
    _etcd: Program,
}

/// What a member needs of the deployment.
pub(crate) struct Plan<'a> {
    pub(crate) home: &'a Home,
    pub(crate) programs: &'a Path,
    /// For all members the same.
    pub(crate) postgresql_conf: &'a Path,
    pub(crate) superuser_password: &'a str,
    /// Where HAProxy listens.
    pub(crate) port: u16,
    /// Makes a folder that PostgreSQL may use.
    pub(crate) folder: &'a dyn Fn(&str) -> PathBuf,
    /// Makes a file that it may read.
    pub(crate) file: &'a dyn Fn(&str, &str) -> PathBuf,
}

impl Plan<'_> {
    fn member(&self, name: &'static str, etcd_port: u16) -> Member {
        let (port, rest_port) = (free_port(), free_port());
        let (data, socket) = ((self.folder)(&format!("data-{name}")), (self.folder)(&format!("run-{name}")));
        let text = format!(
            "scope: mana\nname: {name}\n\
             restapi: {{listen: '127.0.0.1:{rest_port}', connect_address: '127.0.0.1:{rest_port}'}}\n\
             etcd3: {{hosts: '127.0.0.1:{etcd_port}'}}\n\
             bootstrap:\n  dcs:\n    ttl: {ttl}\n    loop_wait: 2\n    retry_timeout: 3\n    synchronous_mode: true\n    \
             postgresql: {{use_pg_rewind: true}}\n  \
             initdb: [{{auth: scram-sha-256}}, {{encoding: UTF8}}, {{locale: C.UTF-8}}, data-checksums]\n\
             postgresql:\n  listen: '127.0.0.1:{port}'\n  connect_address: '127.0.0.1:{port}'\n  data_dir: {data}\n  \
             bin_dir: {programs}\n  custom_conf: {conf}\n  pgpass: {socket}/pgpass\n  use_unix_socket: true\n  \
             use_unix_socket_repl: false\n  parameters: {{unix_socket_directories: '{socket}'}}\n  authentication:\n    \
             superuser: {{username: postgres, password: {password}}}\n    \
             replication: {{username: replicator, password: {password}, sslmode: require}}\n    \
             rewind: {{username: rewinder, password: {password}, sslmode: require}}\n",
            ttl = LEASE.as_secs(),
            data = data.display(),
            programs = self.programs.display(),
            conf = self.postgresql_conf.display(),
            socket = socket.display(),
            password = self.superuser_password,
        );
        let settings = (self.file)(&format!("patroni-{name}.yml"), &text);
        Member { name, data, socket, settings, port, rest_port, patroni: Mutex::default() }
    }

    fn start_etcd(&self, port: u16) -> Program {
        let (client, peer) =
            (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg((self.folder)("etcd")).args(["--log-level=error"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        Program::start(self.home, ("etcd", "etcd-server"), command, "", port)
    }

    fn start_balancer(&self, members: &[Member; 2]) -> Program {
        let servers = members.iter().map(|Member { name, port, rest_port, .. }| {
            format!("  server {name} 127.0.0.1:{port} check port {rest_port}\n")
        });
        let settings = format!(
            "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1h\n  timeout server 1h\n\
             listen postgres\n  bind 127.0.0.1:{}\n  option httpchk GET /primary\n  http-check expect status 200\n  \
             default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n{}",
            self.port,
            servers.collect::<String>()
        );
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg((self.file)("primary.cfg", &settings));
        Program::start(self.home, ("haproxy-primary", "haproxy"), command, "", self.port)
    }
}

impl Member {
    fn start(&self, home: &Home) {
        let mut command = Command::new("patroni");
        command.arg(&self.settings).env("HOME", home.path());
        let program = Program::start(home, ("patroni", "patroni python3-etcd"), command, "", self.rest_port);
        *self.patroni.lock().unwrap() = Some(program);
    }

    /// What Patroni says at a path of it: whether it is so.
    fn is(&self, role: &str) -> bool {
        let reply = crate::http::exchange(self.rest_port, "GET", role, "", "");
        reply.is_ok_and(|reply| reply.status == 200)
    }

    /// As if the power went: Patroni, PostgreSQL and all that it has started.
    fn kill(&self) {
        let Some(patroni) = self.patroni.lock().unwrap().take() else { return };
        patroni.signal("STOP");
        let noted = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        if let Some(postmaster) = noted.lines().next().and_then(|line| line.trim().parse().ok()) {
            send_signal("STOP", &[postmaster]);
            send_signal("KILL", &processes_under(postmaster));
        }
        patroni.kill();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // A stop would first bring the other one up to date.
        self.kill();
    }
}

impl Pair {
    /// The first of the two makes the database; ready when the second one follows in step.
    pub(crate) fn start(plan: &Plan<'_>) -> Self {
        let etcd_port = free_port();
        let etcd = plan.start_etcd(etcd_port);
        let members = ["one", "two"].map(|name| plan.member(name, etcd_port));
        let balancer = plan.start_balancer(&members);
        let pair = Self { _balancer: balancer, members, _etcd: etcd };
        pair.members[0].start(plan.home);
        poll(SOON, "a primary", || pair.members[0].is("/primary").then_some(()));
        pair.members[1].start(plan.home);
        pair.await_standby();
        pair
    }

    /// Waits until what is acknowledged is on both.
    pub(crate) fn await_standby(&self) {
        poll(SOON, "a synchronous standby", || self.members.iter().any(|one| one.is("/sync")).then_some(()));
    }

    fn primary(&self) -> &Member {
        poll(SOON, "a primary", || self.members.iter().find(|one| one.is("/primary")))
    }

    /// Where its superuser signs in.
    pub(crate) fn socket_of_primary(&self) -> (PathBuf, u16) {
        let primary = self.primary();
        (primary.socket.clone(), primary.port)
    }

    /// Kills the primary with its machine, and says which it was.
    pub(crate) fn kill_primary(&self) -> &'static str {
        let primary = self.primary();
        primary.kill();
        primary.name
    }

    /// The machine of that name is there again: it follows the other one from now on.
    pub(crate) fn restart(&self, home: &Home, name: &str) {
        self.members.iter().find(|one| one.name == name).unwrap().start(home);
        self.await_standby();
    }
}
