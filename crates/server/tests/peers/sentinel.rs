//! Two Redis and three sentinels that agree which one is the master. It is killed, and stands still, while people come: limits
//! hold meanwhile, and are shared again with the one that took over.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::http;
use crate::process::{Home, Server, free_port, poll};
use crate::program::{Program, account};
use serde_json::json;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;
use std::time::{Duration, Instant};

const PASSWORD: &str = "redis0123456789";
const OF_SENTINELS: &str = "sentinel0123456789";
const MASTER: &str = "limits";
/// Requests of an address in an hour.
const LIMIT: u32 = 40;
const SOON: Duration = Duration::from_mins(1);

/// Declared in the order in which they stop.
struct Watched {
    sentinels: Vec<Program>,
    sentinel_ports: Vec<u16>,
    servers: [Option<Program>; 2],
    ports: [u16; 2],
    home: Home,
}

impl Watched {
    fn start() -> Self {
        let ports = [free_port(), free_port()];
        let sentinel_ports: Vec<_> = (0..3).map(|_| free_port()).collect();
        let home = Home::new();
        let mut watched = Self { sentinels: Vec::new(), sentinel_ports, servers: [None, None], ports, home };
        watched.start_server(0, None);
        watched.start_server(1, Some(0));
        poll(SOON, "a replica that follows", || {
            watched.ask(watched.ports[1], "info replication").contains("master_link_status:up").then_some(())
        });
        for port in watched.sentinel_ports.clone() {
            watched.start_sentinel(port);
        }
        poll(SOON, "sentinels that know each other", || {
            let ask = |port| watched.ask(port, &format!("sentinel ckquorum {MASTER}"));
            watched.sentinel_ports.iter().all(|port| ask(*port).contains("OK 3 usable")).then_some(())
        });
        watched
    }

    fn start_server(&mut self, number: usize, of: Option<usize>) {
        let port = self.ports[number];
        let mut text = format!(
            "port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly no\nrequirepass {PASSWORD}\nmasterauth {PASSWORD}\n\
             repl-diskless-sync-delay 0\n"
        );
        if let Some(of) = of {
            writeln!(text, "replicaof 127.0.0.1 {}", self.ports[of]).unwrap();
        }
        self.servers[number] = Some(self.launch(&format!("redis-{port}"), &text, &[], port));
    }

    fn start_sentinel(&mut self, port: u16) {
        let text = format!(
            "port {port}\nbind 127.0.0.1\nrequirepass {OF_SENTINELS}\nsentinel sentinel-pass {OF_SENTINELS}\n\
             sentinel monitor {MASTER} 127.0.0.1 {} 2\nsentinel auth-pass {MASTER} {PASSWORD}\n\
             sentinel down-after-milliseconds {MASTER} 10000\nsentinel failover-timeout {MASTER} 5000\n",
            self.ports[0]
        );
        let sentinel = self.launch(&format!("sentinel-{port}"), &text, &["--sentinel"], port);
        self.sentinels.push(sentinel);
    }

    /// In a folder of its own, with settings that it may write.
    fn launch(&self, name: &str, text: &str, arguments: &[&str], port: u16) -> Program {
        let folder = self.home.path().join(name);
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
        }
        let settings = folder.join("redis.conf");
        fs::write(&settings, format!("{text}dir {}\n", folder.display())).unwrap();
        for path in [&folder, &settings] {
            fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
            chown(path, Some(account()), Some(account())).unwrap();
        }
        let mut command = Command::new("redis-server");
        command.arg(settings).args(arguments);
        Program::start(&self.home, ("redis", "redis-server"), command, "", port)
    }

    fn ask(&self, port: u16, command: &str) -> String {
        let password = if self.sentinel_ports.contains(&port) { OF_SENTINELS } else { PASSWORD };
        let mut ask = Command::new("redis-cli");
        ask.args(["-p", &port.to_string()]).args(command.split(' ')).env("REDISCLI_AUTH", password);
        String::from_utf8_lossy(&ask.output().unwrap().stdout).into_owned()
    }

    fn addresses(&self) -> String {
        let addresses: Vec<_> = self.sentinel_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        addresses.join(",")
    }

    /// Waits until the sentinels agree on this one.
    fn await_master(&self, number: usize) {
        poll(SOON, "sentinels that name another master", || {
            let named = |port| self.ask(port, &format!("sentinel get-master-addr-by-name {MASTER}"));
            let wanted = self.ports[number].to_string();
            self.sentinel_ports
                .iter()
                .all(|port| named(*port).lines().any(|line| line == wanted))
                .then_some(())
        });
    }
}

/// Asks for something without being anybody: whether it may.
fn may_ask(server: &Server) -> bool {
    let reply = server.get("/api/v1/auth/me");
    assert!([401, 429].contains(&reply.status), "{reply:?}");
    reply.status == 401
}

/// How many of so many requests may be made.
fn pass(servers: &[&Server], times: u32) -> u32 {
    (0..times).zip(servers.iter().cycle()).map(|(_, server)| u32::from(may_ask(server))).sum()
}

fn redis_up(server: &Server) -> bool {
    server.get("/metrics").body.contains("\nredis_up 1\n")
}

/// While people come. Says how long it took.
fn await_redis(servers: &[&Server], is_up: bool) -> Duration {
    let begun = Instant::now();
    for server in servers {
        poll(SOON, "what is said of Redis", || {
            may_ask(server);
            (redis_up(server) == is_up).then_some(())
        });
    }
    begun.elapsed()
}

#[test]
fn a_redis_that_another_one_takes_over_from_opens_nothing_and_revives_nothing() {
    let mut watched = Watched::start();
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let launch = || {
        home.serve()
            .env("DATABASE_URL", cluster.service_url("mana"))
            .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
            .env("MANA_SECRET_KEY", ROOT_SECRET)
            .env("RATE_LIMIT_MAX", LIMIT.to_string())
            // What comes back while the test runs is little.
            .env("RATE_LIMIT_TTL", "36000")
            .env("RATE_LIMIT_REFRESH", "0")
            .env("RATE_LIMIT_LOGIN", "0")
            .env("REDIS_SENTINELS", watched.addresses())
            .env("REDIS_SENTINEL_MASTER", MASTER)
            .env("REDIS_SENTINEL_PASSWORD", OF_SENTINELS)
            .env("REDIS_PASSWORD", PASSWORD)
            .env("REDIS_WAIT_MS", "3000")
    };
    let (one, two) = (launch().start(), launch().start());
    let both = [&one, &two];
    one.register("ada@example.com");
    let gone = one.login("ada@example.com");
    let refresh = json!({"refreshToken": gone.text("/refreshToken")});
    let out = one.post_as(&gone.text("/accessToken"), "/api/v1/auth/logout", &serde_json::Value::Null);
    assert_eq!(out.status, 200, "{out:?}");
    let nothing_comes_back = || {
        for server in both {
            assert_eq!(server.post("/api/v1/auth/refresh", &refresh).status, 401);
            let me = http::exchange(server.port, "GET", "/api/v1/auth/me", &gone.text("/accessToken"), "")
                .unwrap();
            assert!([401, 429].contains(&me.status), "{me:?}");
        }
    };

    await_redis(&both, true);
    let before = pass(&both, LIMIT * 2);
    assert!(before < LIMIT, "they share one limit: {before}");
    nothing_comes_back();

    watched.servers[0].take().unwrap().kill();
    let killed = Instant::now();
    // At once: soon another one takes over.
    await_redis(&both, false);
    assert!(pass(&[&one], LIMIT * 3) <= LIMIT, "never open");
    assert!(!may_ask(&one), "nor later");
    nothing_comes_back();
    one.login("ada@example.com");
    watched.await_master(1);
    await_redis(&both, true);
    eprintln!("the master was killed: limits are shared again after {:.1?}", killed.elapsed());
    nothing_comes_back();
    assert!(pass(&both, LIMIT * 3) <= LIMIT, "they share one limit again");

    watched.start_server(0, Some(1));
    poll(SOON, "a replica that follows", || {
        watched.ask(watched.ports[0], "info replication").contains("master_link_status:up").then_some(())
    });
    let master = watched.servers[1].as_ref().unwrap();
    master.signal("STOP");
    let stopped = Instant::now();
    await_redis(&both, false);
    watched.await_master(0);
    await_redis(&both, true);
    eprintln!("the master stood still: limits are shared again after {:.1?}", stopped.elapsed());
    master.signal("CONT");
    nothing_comes_back();
    assert!(!may_ask(&one) && !may_ask(&two), "what was used up still is");
    poll(SOON, "a former master that follows", || {
        watched.ask(watched.ports[1], "info replication").contains("role:slave").then_some(())
    });
    assert!(!may_ask(&one) && !may_ask(&two) && redis_up(&one) && redis_up(&two));

    for server in both {
        poll(SOON, "a bell at the new master", || {
            server.get("/metrics").body.contains("\nsession_bell_up 1\n").then_some(())
        });
    }
    let log = one.stderr();
    for text in [
        "Redis does not tell of ended sessions",
        "Redis tells of ended sessions again",
        "Redis is lost",
        "Redis answers again",
        &format!("127.0.0.1:{}", watched.ports[1]),
    ] {
        assert!(log.contains(text), "{text}: {log}");
    }
    assert!(!log.contains(PASSWORD) && !log.contains(OF_SENTINELS), "{log}");
}
