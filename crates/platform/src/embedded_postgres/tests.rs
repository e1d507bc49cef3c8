//! Against the installed PostgreSQL, as root or as an ordinary user.

use super::cluster::noted_pid;
use super::process::{command_line, poll};
use super::{
    Durability, EmbeddedPostgres, EmbeddedPostgresError as Error, Options, default_folder, programs,
};
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Open to all, because as root another account has to pass through.
fn home() -> TempDir {
    let open = Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(open).tempdir().unwrap()
}

/// Straight among the temporary files, from where any account can remove it.
fn thrown_away(length: usize) -> PathBuf {
    let home = home().path().file_name().unwrap().to_owned();
    let name = format!("mana-{}{}", home.to_str().unwrap(), "-".repeat(length));
    std::env::temp_dir().join(name)
}

fn start(folder: &Path, durability: Durability) -> Result<EmbeddedPostgres, Error> {
    let options = Options { folder: folder.to_owned(), durability, throw_away: false };
    EmbeddedPostgres::start(&options, &|bytes| bytes.fill(0xa7))
}

fn start_thrown_away(folder: &Path) -> Result<EmbeddedPostgres, Error> {
    let options = Options { folder: folder.to_owned(), durability: Durability::None, throw_away: true };
    EmbeddedPostgres::start(&options, &|bytes| bytes.fill(0xa7))
}

fn query(server: &EmbeddedPostgres, sql: &str) -> String {
    let mut psql = Command::new(server.programs().join("psql"));
    psql.env("PGPASSWORD", server.password());
    psql.arg("-p").arg(server.port().to_string());
    psql.arg("-h").arg(server.socket_folder());
    let output = psql.args(["-U", server.superuser(), "-d", "postgres", "-Atc", sql]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn postmaster(folder: &Path) -> u32 {
    noted_pid(&folder.join("cluster/postmaster.pid")).unwrap()
}

fn kill(pid: u32) {
    let status = Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status();
    assert!(status.unwrap().success());
}

/// The script and the watcher it forked, but not the server.
fn kill_watchdog(folder: &Path) {
    let entries = fs::read_dir("/proc").unwrap();
    let pids: Vec<u32> = entries
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = command_line(*pid).unwrap_or_default();
            line.starts_with("sh\0-c\0") && line.contains(folder.to_str().unwrap())
        })
        .collect();
    assert_eq!(pids.len(), 2);
    pids.into_iter().for_each(kill);
}

fn has_gone(pid: u32) -> bool {
    poll(Duration::from_secs(5), || command_line(pid).is_none_or(|line| line.is_empty()))
}

#[test]
fn data_is_found_again_and_has_one_instance() {
    let home = home();
    let folder = home.path().join("made/on the \"way data");
    let first = start(&folder, Durability::None).unwrap();
    assert_eq!(first.password(), "a7".repeat(32));
    assert!(!format!("{first:?}").contains("a7a7"));
    query(&first, "create table kept as select 42 as answer");
    assert_eq!(query(&first, "show timezone"), "UTC");
    let is_scram = "select rolpassword like 'SCRAM%' from pg_authid where oid = 10";
    assert_eq!(query(&first, is_scram), "t");
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().mode() & 0o777;
    assert_eq!(
        [mode("run"), mode("cluster"), mode("password"), mode("server.log")],
        [0o700, 0o700, 0o600, 0o600]
    );
    assert_eq!(mode("") & 0o066, 0);

    let refusal = start(&folder, Durability::None).unwrap_err().to_string();
    let expected = format!(
        "the data folder {} is in use by another running instance (pid {}). Stop it, or choose another with \
         --data-dir",
        folder.display(),
        std::process::id()
    );
    assert_eq!(refusal, expected);

    first.stop().unwrap();
    let second = start(&folder, Durability::None).unwrap();
    assert_eq!(query(&second, "select answer from kept"), "42");
    second.stop().unwrap();
}

#[test]
fn starts_after_everything_was_killed_and_beside_an_orphan() {
    let home = home();
    let folder = home.path().join("data");
    let first = start(&folder, Durability::Full).unwrap();
    query(&first, "create table kept as select 42 as answer");
    let server = postmaster(&folder);
    kill_watchdog(&folder);
    kill(server);
    drop(first);

    let second = start(&folder, Durability::Full).unwrap();
    assert_eq!(query(&second, "select answer from kept"), "42");
    let orphan = postmaster(&folder);
    kill_watchdog(&folder);
    drop(second);
    assert!(!command_line(orphan).unwrap().is_empty());

    let third = start(&folder, Durability::Full).unwrap();
    assert!(has_gone(orphan));
    assert_eq!(query(&third, "select answer from kept"), "42");
    third.stop().unwrap();
}

#[test]
fn a_number_that_went_to_another_process_is_no_server() {
    let home = home();
    let folder = home.path().join("data");
    start(&folder, Durability::None).unwrap().stop().unwrap();
    let pid_file = folder.join("cluster/postmaster.pid");
    fs::write(&pid_file, format!("{}\n", std::process::id())).unwrap();
    start(&folder, Durability::None).unwrap().stop().unwrap();
}

#[test]
fn what_the_server_says_is_passed_on() {
    let home = home();
    let folder = home.path().join("data");
    start(&folder, Durability::None).unwrap().stop().unwrap();
    fs::write(folder.join("cluster/postgresql.conf"), "not_a_setting = 1\n").unwrap();
    let refusal = start(&folder, Durability::None).unwrap_err().to_string();
    assert!(refusal.starts_with("PostgreSQL ended early. Mend what "), "{refusal}");
    assert!(refusal.contains("\"not_a_setting\""), "{refusal}");

    fs::write(folder.join("cluster/PG_VERSION"), "9\n").unwrap();
    assert!(matches!(start(&folder, Durability::None), Err(Error::OtherVersion(_, 9))));
}

#[test]
fn dropping_ends_the_server_and_throws_the_folder_away() {
    let folder = thrown_away(100);
    let server = start_thrown_away(&folder).unwrap();
    let pid = postmaster(&folder);
    let socket_folder = server.socket_folder().to_owned();
    assert!(!socket_folder.starts_with(&folder));
    assert_eq!(query(&server, "select 1"), "1");
    drop(server);
    assert!(has_gone(pid) && !folder.exists() && !socket_folder.exists());
}

#[test]
fn takes_over_no_folder_of_something_else() {
    let home = home();
    fs::write(home.path().join("letter.txt"), "dear").unwrap();
    let refusal = start(home.path(), Durability::None).unwrap_err().to_string();
    assert!(refusal.contains("already holds something else"), "{refusal}");
    fs::write(home.path().join("lock"), "").unwrap();
    let refusal = start_thrown_away(home.path()).unwrap_err().to_string();
    assert!(refusal.contains("already holds something else"), "{refusal}");
    assert!(home.path().join("letter.txt").exists());
}

#[test]
fn root_is_told_of_a_folder_the_account_cannot_reach() {
    let home = home();
    let closed = home.path().join("closed");
    let wanted = closed.join("mana/.data");
    DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let reachable = home.path().join("data");
    assert_eq!(default_folder(&reachable), reachable);
    if closed.metadata().unwrap().uid() != 0 {
        assert_eq!(default_folder(&wanted), wanted);
        return;
    }
    let suggestion = default_folder(&wanted);
    assert!(suggestion.to_str().unwrap().starts_with("/var/lib/mana-core-auth/mana-"));
    let refusal = start(&wanted, Durability::None).unwrap_err();
    let Error::Unreachable(_, blocked, suggested) = refusal else { panic!("{refusal}") };
    assert_eq!((blocked, suggested), (closed, suggestion));
    assert!(!wanted.exists());
}

#[test]
fn versions_are_understood() {
    let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)";
    assert_eq!(programs::major(debian), Some(15));
    assert_eq!(programs::major("postgres (PostgreSQL) 18beta1"), Some(18));
    assert_eq!(programs::major("psql: command not found"), None);
}
