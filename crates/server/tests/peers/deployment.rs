//! What deploy/docker-compose.yml describes, as processes: PostgreSQL with its roles and certificates, PgBouncer, Redis, two
//! servers, a load balancer and Prometheus, each with the very files of `deploy/`. Only addresses and paths are others, and
//! HAProxy stands for Traefik: it too asks each server whether it is ready, and sends nothing twice.

use crate::clock::Clock;
use crate::cluster::{ROOT_SECRET, Sql};
use crate::disk::Disk;
use crate::http::{self, Reply};
use crate::network::Network;
use crate::process::{Home, Launch, Server, free_port, poll, processes_under, send_signal};
use crate::program::{Program, account};
use crate::standby::{Pair, Plan};
use mana_kernel::Clock as _;
use mana_platform::SystemClock;
use mana_testkit::{begin_with_time_left_today, keeps_statements_apart};
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const SOON: Duration = Duration::from_secs(30);
/// What a test of it takes at most, on a busy machine.
const TEST: Duration = Duration::from_mins(5);
const SUPERUSER: &str = "superuser0123456789";
const OWNER: &str = "owner0123456789";
const SERVICE: &str = "service0123456789";
const BACKUP: &str = "backup0123456789";
const POOLER: &str = "pooler0123456789";
const REDIS: &str = "redis0123456789";

/// A file of `deploy/`.
pub(crate) fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

/// Of this release.
pub(crate) fn own_binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_mana-core-auth"))
}

/// Its text with other addresses and paths. Each must be there: else the test would test something else.
pub(crate) fn adapted(name: &str, changes: &[(&str, &str)]) -> String {
    let text = fs::read_to_string(deploy(name)).unwrap();
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} does not say {from:?}");
        text.replace(from, to)
    })
}

/// The whole, running. Declared in the order in which it stops.
#[derive(Debug)]
pub(crate) struct Deployment {
    servers: [Mutex<Option<Server>>; 2],
    prometheus: Option<Program>,
    balancer: Option<Program>,
    /// Between the servers and PgBouncer, where it can fall silent.
    network: Option<Network>,
    bouncer: Mutex<Option<Program>>,
    redis: Mutex<Option<Program>>,
    postgres: Mutex<Option<Program>>,
    pair: Option<Pair>,
    ports: Ports,
    pool_size: u32,
    settings: Vec<(&'static str, String)>,
    /// What migrates at the start, and serves.
    binary: PathBuf,
    /// What the balancer asks the servers.
    readiness: &'static str,
    /// Of PostgreSQL, where it is not the machine's.
    disk: Option<Disk>,
    /// Of the servers, where they are not the machine's.
    clocks: Option<[Clock; 2]>,
    pub(crate) home: Home,
}

#[derive(Debug)]
struct Ports {
    postgres: u16,
    bouncer: u16,
    redis: u16,
    servers: [u16; 2],
    balancer: u16,
    prometheus: u16,
}

impl Deployment {
    /// All but Prometheus. `pool_size` are the connections that PgBouncer has to PostgreSQL.
    pub(crate) fn start(pool_size: u32, settings: &[(&'static str, &str)]) -> Self {
        begin_with_time_left_today(TEST);
        Self::assemble(pool_size, settings).run()
    }

    /// The same, with a disk of PostgreSQL that can be full, clocks of the servers that can step, and a network between that
    /// can fall silent. Whoever takes this counts the days that pass.
    pub(crate) fn start_fragile(pool_size: u32, settings: &[(&'static str, &str)]) -> Self {
        let mut deployment = Self::assemble(pool_size, settings);
        deployment.disk = Some(Disk::mount(&deployment.folder("data"), account()));
        deployment.clocks = Some(["clock-0", "clock-1"].map(|name| Clock::new(&deployment.home, name)));
        deployment.network = Some(Network::start(deployment.ports.bouncer));
        deployment.run()
    }

    /// The same by the binary of another release.
    pub(crate) fn start_release(binary: &Path, pool_size: u32, settings: &[(&'static str, &str)]) -> Self {
        begin_with_time_left_today(TEST);
        let mut deployment = Self::assemble(pool_size, settings);
        binary.clone_into(&mut deployment.binary);
        // Which every release answers.
        deployment.readiness = "/health/ready";
        deployment.run()
    }

    fn assemble(pool_size: u32, settings: &[(&'static str, &str)]) -> Self {
        let ports = Ports {
            postgres: free_port(),
            bouncer: free_port(),
            redis: free_port(),
            servers: [free_port(), free_port()],
            balancer: free_port(),
            prometheus: free_port(),
        };
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self {
            servers: Default::default(),
            prometheus: None,
            balancer: None,
            network: None,
            bouncer: Mutex::default(),
            redis: Mutex::default(),
            postgres: Mutex::default(),
            pair: None,
            ports,
            pool_size,
            settings,
            binary: own_binary(),
            readiness: "/health/serving",
            disk: None,
            clocks: None,
            home: Home::new(),
        }
    }

    /// The same with PostgreSQL on two machines, of which one takes over from the other.
    pub(crate) fn start_with_standby(pool_size: u32, settings: &[(&'static str, &str)]) -> Self {
        begin_with_time_left_today(TEST);
        let mut deployment = Self::assemble(pool_size, settings);
        deployment.make_certificates();
        deployment.write_settings_of_postgres("");
        deployment.pair = Some(Pair::start(&Plan {
            home: &deployment.home,
            programs: &Self::programs(),
            postgresql_conf: &deployment.home.path().join("postgresql.conf"),
            superuser_password: SUPERUSER,
            port: deployment.ports.postgres,
            folder: &|name| deployment.folder(name),
            file: &|name, text| deployment.file(name, text),
        }));
        deployment.serve()
    }

    fn run(self) -> Self {
        self.make_certificates();
        self.make_cluster();
        self.start_postgres();
        self.serve()
    }

    /// On a PostgreSQL that runs.
    fn serve(mut self) -> Self {
        self.make_roles();
        self.start_bouncer();
        self.start_redis();
        let migrate = self.command_of(&self.binary, &["migrate"]);
        migrate.env("DATABASE_OWNER_URL", self.owner_url()).run().succeeded();
        self.start_server(0);
        self.start_server(1);
        self.start_balancer();
        self
    }

    /// A folder of the account that runs what refuses to be root.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.home.path().join(name);
        if !path.exists() {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
            chown(&path, Some(account()), Some(account())).unwrap();
        }
        path
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.file(name, text);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(account()), Some(account())).unwrap();
        path
    }

    /// A script of `deploy/` as that account, to its end.
    pub(crate) fn script(&self, name: &str, args: &[&Path], variables: &[(&str, String)]) -> Output {
        self.script_with_input(name, args, variables, "")
    }

    fn script_with_input(
        &self,
        name: &str,
        args: &[&Path],
        variables: &[(&str, String)],
        input: &str,
    ) -> Output {
        let mut command = Command::new("bash");
        command.arg(deploy(name)).args(args).envs(variables.iter().map(|(name, value)| (name, value)));
        command.env("HOME", self.home.path()).uid(account()).gid(account()).current_dir(self.home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn certificates(&self) -> PathBuf {
        self.home.path().join("certificates")
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.folder("wal")
    }

    fn make_certificates(&self) {
        let (certificates, account) = (self.certificates(), account().to_string());
        fs::create_dir(&certificates).unwrap();
        let mut make = Command::new("sh");
        make.arg(deploy("certificates/make")).arg(&certificates).arg(self.wal());
        make.env("POSTGRES_UID", &account).env("POOLER_UID", &account);
        if self.clocks.is_some() {
            // Nobody whose clock is a day late trusts what was made today.
            make.envs(Clock::two_days_ago());
        }
        assert!(make.status().unwrap().success(), "openssl is installed (apt-get install openssl)");
    }

    fn programs() -> PathBuf {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
        let found = versions.map(|entry| entry.unwrap().path().join("bin")).max();
        found.expect("PostgreSQL is installed (apt-get install postgresql)")
    }

    fn make_cluster(&self) {
        let (data, password) = (self.folder("data"), self.file("password", SUPERUSER));
        let mut initdb = Command::new(Self::programs().join("initdb"));
        initdb.arg("--pgdata").arg(data).arg("--pwfile").arg(password);
        initdb.args(["--username=postgres", "--auth=scram-sha-256", "--data-checksums", "--no-sync"]);
        let made = initdb.uid(account()).gid(account()).current_dir("/").output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let run = self.folder("run");
        self.write_settings_of_postgres(&format!(
            "port = {}\nunix_socket_directories = '{}'\n",
            self.ports.postgres,
            run.display()
        ));
    }

    fn write_settings_of_postgres(&self, more: &str) {
        let followers =
            "hostssl replication replicator all scram-sha-256\nhostssl all rewinder all scram-sha-256\n";
        let logins = adapted("postgres/pg_hba.conf", &[]);
        let followers = if more.is_empty() { followers } else { "" };
        self.file("pg_hba.conf", &format!("{logins}{followers}"));
        let place = self.home.path().display();
        let text = adapted(
            "postgres/postgresql.conf",
            &[
                ("/etc/postgresql/pg_hba.conf", &format!("{place}/pg_hba.conf")),
                ("'/certificates/", &format!("'{place}/certificates/")),
                ("/etc/postgresql/archive", &deploy("postgres/archive").display().to_string()),
                ("\"/wal/", &format!("\"{place}/wal/")),
                ("listen_addresses = '*'", "listen_addresses = '127.0.0.1'"),
                ("shared_buffers = 1GB", "shared_buffers = 64MB"),
            ],
        );
        self.file("postgresql.conf", &format!("{text}\n{more}"));
    }

    /// PostgreSQL on a folder of data, on a port of its own or on the one that all others know.
    pub(crate) fn postgres_on(&self, data: &Path, port: u16) -> Program {
        let mut command = Command::new(Self::programs().join("postgres"));
        command.arg("-D").arg(data).arg("-c");
        command.arg(format!("config_file={}", self.home.path().join("postgresql.conf").display()));
        command.arg("-c").arg(format!("port={port}"));
        let program = Program::start(&self.home, ("postgres", "postgresql"), command, "", port);
        poll(SOON, "a PostgreSQL that takes connections", || {
            let mut ready = Command::new("pg_isready");
            ready.args(["--quiet", "--host=127.0.0.1", "--port"]).arg(port.to_string());
            ready.status().unwrap().success().then_some(())
        });
        program.stopped_by("INT")
    }

    /// Whether PostgreSQL gets through a recovery. It ends either way.
    pub(crate) fn recovers(&self, data: &Path, port: u16) -> bool {
        let log = self.home.path().join("recovery.log");
        let mut command = Command::new(Self::programs().join("postgres"));
        command.arg("-D").arg(data).arg("-c");
        command.arg(format!("config_file={}", self.home.path().join("postgresql.conf").display()));
        command.arg("-c").arg(format!("port={port}"));
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut child = command.uid(account()).gid(account()).current_dir(self.home.path()).spawn().unwrap();
        let recovers = poll(SOON, "an end of the recovery", || {
            let text = fs::read_to_string(&log).unwrap();
            let ended = child.try_wait().unwrap().is_some();
            (ended || text.contains("ready to accept connections\n") && text.contains("recovery complete"))
                .then_some(!ended)
        });
        send_signal("INT", &[child.id()]);
        child.wait().unwrap();
        recovers
    }

    pub(crate) fn start_postgres(&self) {
        let program = self.postgres_on(&self.folder("data"), self.ports.postgres);
        *self.postgres.lock().unwrap() = Some(program);
    }

    /// The image makes the database, then `deploy/up` the roles; over the socket, as the superuser.
    fn make_roles(&self) {
        let mut create = Command::new("psql");
        create.args(["--no-psqlrc", "--command=CREATE DATABASE mana"]).envs(self.superuser_variables());
        assert!(create.output().unwrap().status.success());
        let set = self.give_passwords(SERVICE);
        assert_eq!(set.lines().count(), 4, "of each role that signs in: {set}");
        assert_eq!(self.give_passwords(SERVICE), "", "a second time changes nothing");
    }

    /// What `deploy/up` does with the passwords of `.env`: says whose are new.
    pub(crate) fn give_passwords(&self, service: &str) -> String {
        let input = format!(
            "POSTGRES_PASSWORD={SUPERUSER}\nDATABASE_OWNER_PASSWORD={OWNER}\nDATABASE_PASSWORD={service}\nDATABASE_BACKUP_PASSWORD={BACKUP}\nPGBOUNCER_PASSWORD={POOLER}\n"
        );
        let mut variables = self.superuser_variables();
        // As the container was started, before the superuser got another one.
        variables.push(("PGPASSWORD", "outdated".to_owned()));
        let made = self.script_with_input("postgres/roles", &[], &variables, &input);
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap()
    }

    pub(crate) fn start_bouncer(&self) {
        let place = self.home.path().display();
        let mut text = adapted(
            "pgbouncer/pgbouncer.ini",
            &[
                ("host=postgres port=5432", &format!("host=localhost port={}", self.ports.postgres)),
                ("mana = ", "* = "),
                (" dbname=mana", ""),
                ("listen_addr = *", "listen_addr = 127.0.0.1"),
                ("listen_port = 6432", &format!("listen_port = {}", self.ports.bouncer)),
                ("/run/pgbouncer/", &format!("{place}/")),
                ("/certificates/", &format!("{place}/certificates/")),
                ("default_pool_size = 40", &format!("default_pool_size = {}", self.pool_size)),
            ],
        );
        if !keeps_statements_apart() {
            text = text.replace("max_prepared_statements = 200\n", "");
        }
        let settings = self.file("pgbouncer.ini", &text);
        self.file("users.txt", &format!("\"pgbouncer\" \"{POOLER}\"\n"));
        let mut command = Command::new("pgbouncer");
        command.arg(settings);
        let program = Program::start(&self.home, ("pgbouncer", "pgbouncer"), command, "", self.ports.bouncer);
        *self.bouncer.lock().unwrap() = Some(program.stopped_by("INT"));
    }

    pub(crate) fn start_redis(&self) {
        self.launch_redis("");
    }

    /// With what it had when it was copied.
    pub(crate) fn start_redis_with(&self, copy: &Path) {
        self.launch_redis(&format!("dir {}\ndbfilename old.rdb\n", copy.parent().unwrap().display()));
    }

    fn launch_redis(&self, more: &str) {
        let port = self.ports.redis;
        let text = adapted(
            "redis/redis.conf",
            &[("port 6379", &format!("port {port}")), ("bind * -::*", "bind 127.0.0.1")],
        );
        let mut command = Command::new("redis-server");
        command.arg("-");
        let input = format!("{text}\nrequirepass {REDIS}\n{more}");
        let program = Program::start(&self.home, ("redis", "redis-server"), command, &input, port);
        *self.redis.lock().unwrap() = Some(program);
    }

    /// An address of a database through PgBouncer or past it.
    fn url(&self, user: &str, password: &str, port: u16, database: &str) -> String {
        let authority = self.certificates().join("ca.crt");
        format!(
            "postgres://{user}:{password}@localhost:{port}/{database}?sslmode=verify-full&sslrootcert={}",
            authority.display()
        )
    }

    /// For `DATABASE_URL`.
    pub(crate) fn service_url(&self) -> String {
        let port = self.network.as_ref().map_or(self.ports.bouncer, |network| network.port);
        let url = self.url("mana_service", SERVICE, port, "mana");
        if keeps_statements_apart() { url } else { format!("{url}&statement-cache-capacity=0") }
    }

    /// The same, past PgBouncer, on whatever port PostgreSQL has there.
    pub(crate) fn direct_url(&self, port: u16, database: &str) -> String {
        self.url("mana_service", SERVICE, port, database)
    }

    pub(crate) fn postgres_port(&self) -> u16 {
        self.ports.postgres
    }

    pub(crate) fn bouncer_port(&self) -> u16 {
        self.ports.bouncer
    }

    /// For `DATABASE_OWNER_URL`.
    pub(crate) fn owner_url(&self) -> String {
        self.url("mana_owner", OWNER, self.ports.postgres, "mana")
    }

    fn socket(&self) -> (PathBuf, u16) {
        match &self.pair {
            Some(pair) => pair.socket_of_primary(),
            None => (self.folder("run"), self.ports.postgres),
        }
    }

    /// Both of PostgreSQL's machines.
    pub(crate) fn pair(&self) -> &Pair {
        self.pair.as_ref().unwrap()
    }

    /// As the superuser, over the socket, which is the only way for it.
    pub(crate) fn superuser(&self, database: &str) -> Sql {
        let (socket, port) = self.socket();
        let url =
            format!("postgres://postgres:{SUPERUSER}@localhost:{port}/{database}?host={}", socket.display());
        Sql::connect(&url.parse().unwrap())
    }

    /// Who is let in over TCP.
    pub(crate) fn lets_in(&self, user: &str, password: &str, sslmode: &str) -> bool {
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--command=SELECT 1", "--host=localhost", "--dbname=mana"]);
        psql.arg(format!("--port={}", self.ports.postgres)).arg(format!("--username={user}"));
        psql.env("PGPASSWORD", password).env("PGSSLMODE", sslmode);
        psql.output().unwrap().status.success()
    }

    /// For the scripts in `deploy/backup`.
    pub(crate) fn backup_variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("PGHOST", "localhost".to_owned()),
            ("PGPORT", self.ports.postgres.to_string()),
            ("PGUSER", "mana_backup".to_owned()),
            ("PGPASSWORD", BACKUP.to_owned()),
            ("PGDATABASE", "mana".to_owned()),
            ("PGSSLMODE", "verify-full".to_owned()),
            ("PGSSLROOTCERT", self.certificates().join("ca.crt").display().to_string()),
            ("BACKUPS", self.folder("backups").display().to_string()),
            ("WAL", self.wal().display().to_string()),
        ]
    }

    /// As inside the container of PostgreSQL: the superuser, over the socket.
    pub(crate) fn superuser_variables(&self) -> Vec<(&'static str, String)> {
        let (socket, port) = self.socket();
        vec![
            ("PGHOST", socket.display().to_string()),
            ("PGPORT", port.to_string()),
            ("PGUSER", "postgres".to_owned()),
            ("PGPASSWORD", SUPERUSER.to_owned()),
        ]
    }

    /// For `deploy/backup/measure`, beside those of backups.
    pub(crate) fn measure_variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = self.backup_variables();
        variables.extend([
            ("POOLER_HOST", "localhost".to_owned()),
            ("POOLER_PORT", self.ports.bouncer.to_string()),
            ("POOLER_PASSWORD", POOLER.to_owned()),
            ("MEASURES", self.folder("measures").display().to_string()),
            ("DISKS", format!("postgres={0} wal={0}", self.home.path().display())),
        ]);
        variables
    }

    /// The binary with the settings of the servers.
    pub(crate) fn command(&self, args: &[&str]) -> Launch {
        self.command_of(&own_binary(), args)
    }

    /// The same by the binary of a release.
    pub(crate) fn command_of(&self, binary: &Path, args: &[&str]) -> Launch {
        let launch = self
            .home
            .program(binary, args)
            .env("DATABASE_URL", self.service_url())
            .env("MANA_SECRET_KEY", ROOT_SECRET)
            .env("TRUSTED_PROXIES", "127.0.0.1")
            .env("REDIS_HOST", "127.0.0.1")
            .env("REDIS_PORT", self.ports.redis.to_string())
            .env("REDIS_PASSWORD", REDIS);
        self.settings.iter().fold(launch, |launch, (name, value)| launch.env(name, value))
    }

    pub(crate) fn start_server(&self, number: usize) {
        let launch = self.server_of(&self.binary, number);
        let launch = match &self.clocks {
            Some(clocks) => clocks[number].give_to(launch),
            None => launch,
        };
        self.put_server(number, launch.start());
    }

    /// A server by the binary of a release, not started yet.
    pub(crate) fn server_of(&self, binary: &Path, number: usize) -> Launch {
        let port = self.ports.servers[number];
        self.command_of(binary, &["serve", "--no-migrate", "--port", &port.to_string()]).at(port)
    }

    pub(crate) fn put_server(&self, number: usize, server: Server) {
        *self.servers[number].lock().unwrap() = Some(server);
    }

    /// Does something with a server.
    pub(crate) fn with_server<T>(&self, number: usize, work: impl FnOnce(&Server) -> T) -> T {
        work(self.servers[number].lock().unwrap().as_ref().unwrap())
    }

    pub(crate) fn take_server(&self, number: usize) -> Server {
        self.servers[number].lock().unwrap().take().unwrap()
    }

    pub(crate) fn server_port(&self, number: usize) -> u16 {
        self.ports.servers[number]
    }

    fn start_balancer(&mut self) {
        let [first, second] = self.ports.servers;
        let settings = self.file(
            "haproxy.cfg",
            &format!(
                "defaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 40s\n  timeout check 3s\n  option forwardfor\n  \
                 retries 3\n  retry-on conn-failure\n  option redispatch 1\n\
                 frontend in\n  bind 127.0.0.1:{}\n  default_backend auth\n\
                 backend auth\n  balance roundrobin\n  option httpchk GET {}\n  http-check expect status 200\n  \
                 default-server inter 200ms fall 2 rise 1 check\n  server one 127.0.0.1:{first}\n  server two 127.0.0.1:{second}\n",
                self.ports.balancer, self.readiness
            ),
        );
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(settings);
        let program = Program::start(&self.home, ("haproxy", "haproxy"), command, "", self.ports.balancer);
        self.balancer = Some(program);
        poll(SOON, "a balancer that has found a server", || {
            (self.get("/health/ready").status == 200).then_some(())
        });
    }

    pub(crate) fn start_prometheus(&mut self) {
        let [first, second] = self.ports.servers.map(|port| format!("localhost:{port}"));
        let place = deploy("prometheus").canonicalize().unwrap();
        let text = adapted(
            "prometheus/prometheus.yml",
            &[
                ("/etc/prometheus/", &format!("{}/", place.display())),
                ("auth-1:3001", &first),
                ("auth-2:3001", &second),
                ("localhost:9090", &format!("localhost:{}", self.ports.prometheus)),
                ("scrape_interval: 15s", "scrape_interval: 1s"),
                ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ],
        );
        let settings = self.file("prometheus.yml", &text);
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", settings.display()));
        command.arg(format!("--storage.tsdb.path={}", self.folder("prometheus").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{}", self.ports.prometheus));
        let program =
            Program::start(&self.home, ("prometheus", "prometheus"), command, "", self.ports.prometheus);
        self.prometheus = Some(program);
    }

    /// What Prometheus answers to an expression that is harmless in a URL: the values of its series.
    pub(crate) fn ask_prometheus(&self, expression: &str) -> Vec<String> {
        let path = format!("/api/v1/query?query={expression}");
        let Ok(reply) = http::exchange(self.ports.prometheus, "GET", &path, "", "") else {
            return Vec::new();
        };
        let answer = reply.json();
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        series.iter().map(|one| one["value"][1].as_str().unwrap().to_owned()).collect()
    }

    /// Through the balancer.
    pub(crate) fn get(&self, path: &str) -> Reply {
        http::exchange(self.ports.balancer, "GET", path, "", "").unwrap()
    }

    /// Where clients go.
    pub(crate) fn port(&self) -> u16 {
        self.ports.balancer
    }

    /// PostgreSQL with all that it has started, killed where it is.
    pub(crate) fn kill_postgres(&self) {
        let program = self.postgres.lock().unwrap().take().unwrap();
        // Stopped first, it starts no more of them.
        program.signal("STOP");
        send_signal("KILL", &processes_under(program.id()));
        program.kill();
    }

    /// A stop as by a service manager.
    pub(crate) fn stop_postgres(&self) {
        drop(self.postgres.lock().unwrap().take());
    }

    /// Its processes; stopped ones must be let go on before anything else.
    pub(crate) fn postgres_processes(&self) -> Vec<u32> {
        processes_under(self.postgres.lock().unwrap().as_ref().unwrap().id())
    }

    /// Whether what the servers and PgBouncer say to each other still arrives. Nobody is told that it does not.
    pub(crate) fn network_is_silent(&self, is_silent: bool) {
        self.network.as_ref().unwrap().is_silent(is_silent);
    }

    /// Leaves PostgreSQL no room for another page.
    pub(crate) fn fill_disk(&self) {
        self.disk.as_ref().unwrap().fill();
    }

    /// Gives it room again.
    pub(crate) fn free_disk(&self) {
        self.disk.as_ref().unwrap().free();
    }

    /// Starts PostgreSQL if it has ended, as whoever runs containers does.
    pub(crate) fn keep_postgres_running(&self) {
        let has_ended = self.postgres.lock().unwrap().as_mut().is_none_or(Program::has_ended);
        if has_ended {
            self.start_postgres();
        }
    }

    /// Sets the clock of a server so many seconds beside the right time, and waits until it goes by it.
    pub(crate) fn step_clock(&self, number: usize, seconds: i64) {
        self.clocks.as_ref().unwrap()[number].step_to(seconds);
        poll(SOON, "a server that goes by its clock", || {
            // The Date of answers is a second old at most, and goes no second back: the log tells the time.
            let lines = self.with_server(number, |server| {
                server.get("/health/live");
                server.stderr()
            });
            let line: Value = serde_json::from_str(lines.lines().last()?).ok()?;
            let time = OffsetDateTime::parse(line["timestamp"].as_str()?, &Rfc3339).unwrap();
            let beside = time.unix_timestamp().saturating_sub(SystemClock.now().unix_timestamp());
            (beside.saturating_sub(seconds).abs() < 60).then_some(())
        });
    }

    /// A stop as by a service manager.
    pub(crate) fn stop_bouncer(&self) {
        drop(self.bouncer.lock().unwrap().take());
    }

    pub(crate) fn kill_bouncer(&self) {
        self.bouncer.lock().unwrap().take().unwrap().kill();
    }

    pub(crate) fn kill_redis(&self) {
        self.redis.lock().unwrap().take().unwrap().kill();
    }

    pub(crate) fn signal_redis(&self, signal: &str) {
        self.redis.lock().unwrap().as_ref().unwrap().signal(signal);
    }

    pub(crate) fn flush_redis(&self) {
        self.ask_redis(&["flushall"]);
    }

    pub(crate) fn ask_redis(&self, command: &[&str]) {
        let mut ask = Command::new("redis-cli");
        ask.args(["-p", &self.ports.redis.to_string()]).args(command).env("REDISCLI_AUTH", REDIS);
        assert!(ask.output().unwrap().status.success());
    }

    /// What it has now, as a file to start with.
    pub(crate) fn copy_redis(&self) -> PathBuf {
        let copy = self.folder("redis").join("old.rdb");
        self.ask_redis(&["--rdb", copy.to_str().unwrap()]);
        chown(&copy, Some(account()), Some(account())).unwrap();
        copy
    }

    /// The books, by the command that an operator would use, past PgBouncer.
    pub(crate) fn books_are_true(&self) {
        let direct = self.direct_url(self.ports.postgres, "mana");
        let verify = self
            .command(&["ledger", "verify"])
            .env("DATABASE_URL", direct)
            .env("DATABASE_WAIT_SECONDS", "30")
            .run();
        assert_eq!(verify.code, Some(0), "{verify:?}");
    }
}
