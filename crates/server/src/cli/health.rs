//! `health`: asks a server on this machine whether it is ready, for containers that have no other program to ask with.

use super::{CommandError, print};
use mana_platform::Settings;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Probes are repeated every few seconds; one that takes longer tells as much.
const PATIENCE: Duration = Duration::from_secs(4);

/// Why a server is not healthy.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unhealthy {
    #[error("no server answers at {0}: {1}")]
    Silent(SocketAddr, io::Error),
    #[error("the server at {0} is not ready: it answers {1:?}")]
    NotReady(SocketAddr, String),
}

/// Fails unless the server of these settings is ready.
pub(super) fn run(settings: &Settings) -> Result<(), CommandError> {
    let host = settings.host.filter(|host| !host.is_unspecified());
    let address = SocketAddr::new(host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), settings.port);
    let status = ask(address).map_err(|error| Unhealthy::Silent(address, error))?;
    if status.split(' ').nth(1) == Some("200") {
        Ok(print::line("ready")?)
    } else {
        Err(Unhealthy::NotReady(address, status).into())
    }
}

/// The first line of its answer.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
