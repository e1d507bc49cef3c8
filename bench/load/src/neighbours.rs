//! What stands beside the service in production: PgBouncer before the database, and Redis. Both are the machine's own.

use crate::error::BenchError;
use crate::postgres::Postgres;
use crate::stage::{Process, free_address};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Connections that the pooler has to the database: as many as the service has by default when there is no pooler.
const POOL: u32 = 16;

/// A PgBouncer in transaction mode before `postgres`, and the address of the database by way of it.
pub(crate) async fn pooler(postgres: &Postgres) -> Result<(Process, String), BenchError> {
    let keeps_statements_apart = pooler_version()? >= (1, 21);
    let folder = postgres.folder().join("pooler");
    std::fs::create_dir(&folder)?;
    let (user, password) = postgres.service_login();
    let address = free_address()?;
    let users = folder.join("users.txt");
    std::fs::write(&users, format!("\"{user}\" \"{password}\"\n"))?;
    let settings = folder.join("pgbouncer.ini");
    let statements = if keeps_statements_apart { "max_prepared_statements = 200\n" } else { "" };
    std::fs::write(
        &settings,
        format!(
            "[databases]\n* = host={}\n[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = {}\npool_mode = transaction\n\
             auth_type = scram-sha-256\nauth_file = {users}\ndefault_pool_size = {POOL}\nmax_client_conn = 1000\n{statements}",
            postgres.socket_folder().display(),
            address.port(),
            folder = folder.display(),
            users = users.display(),
        ),
    )?;
    // It refuses to be root, so it is whoever the database is.
    let owner = std::fs::metadata(postgres.socket_folder())?;
    for path in [&folder, &users, &settings] {
        chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    let mut command = Command::new("pgbouncer");
    command.arg("--quiet").arg(&settings).uid(owner.uid()).gid(owner.gid()).current_dir("/");
    let process = Process::start_at("PgBouncer", command, address, Path::new("/dev/null"))?;
    let socket = folder.join(format!(".s.PGSQL.{}", address.port()));
    process.await_ready(|| UnixStream::connect(&socket).is_ok()).await?;
    let without_statements = if keeps_statements_apart { "" } else { "&statement-cache-capacity=0" };
    let url = format!("{}&port={}{without_statements}", postgres.service_url_at(&folder), address.port());
    Ok((process, url))
}

/// From 1.21 on, it can keep its clients' prepared statements apart.
fn pooler_version() -> Result<(u32, u32), BenchError> {
    let missing = || BenchError::Program("pgbouncer", "it is not installed".to_owned());
    let output = Command::new("pgbouncer").arg("--version").output().map_err(|_| missing())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().and_then(|line| line.strip_prefix("PgBouncer "));
    read_version(version.unwrap_or_default()).ok_or(BenchError::NotUnderstood("the version of PgBouncer"))
}

fn read_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A Redis on the loopback that keeps nothing on disk, and its address.
pub(crate) async fn redis() -> Result<(Process, String), BenchError> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).current_dir("/");
    let missing = |_| BenchError::Program("redis-server", "it can't be started; is it installed?".to_owned());
    let process = Process::start("Redis", command, "--port", Path::new("/dev/null")).map_err(missing)?;
    let address = process.address;
    process.await_ready(|| TcpStream::connect(address).is_ok()).await?;
    Ok((process, format!("redis://{address}/0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(read_version("1.18.0"), Some((1, 18)));
        assert!(read_version("1.9.0") < read_version("1.21.0"));
        assert_eq!(read_version("one"), None);
    }
}
