//! A way to a port of this machine that can fall silent: connections stay, new ones are taken, and nothing arrives any more.

use crate::process::listen;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Ends with the test.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) port: u16,
    is_silent: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Network {
    /// A way to `port`.
    pub(crate) fn start(port: u16) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = listen();
        listener.set_nonblocking(true).unwrap();
        let own = listener.local_addr().unwrap().port();
        let (is_silent, silence) = watch::channel(false);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, port, silence.clone()));
            }
        });
        Self { port: own, is_silent, _runtime: runtime }
    }

    /// For all connections. Those that saw silence never speak again: what was under way is lost, as in a network whose
    /// routes have changed.
    pub(crate) fn is_silent(&self, is_silent: bool) {
        self.is_silent.send(is_silent).unwrap();
    }
}

async fn carry(client: TcpStream, port: u16, mut silence: watch::Receiver<bool>) -> io::Result<()> {
    let was_silent = *silence.borrow();
    if was_silent {
        return fall_silent(client).await;
    }
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let kept = tokio::select! {
        _ = silence.wait_for(|is_silent| *is_silent) => true,
        _ = pass(&from_client, &to_server) => false,
        _ = pass(&from_server, &to_client) => false,
    };
    if kept {
        let client = from_client.reunite(to_client).map_err(io::Error::other)?;
        // The other side hears nothing either, and gives up when it does.
        let _server = from_server.reunite(to_server).map_err(io::Error::other)?;
        fall_silent(client).await?;
    }
    Ok(())
}

async fn pass(from: &OwnedReadHalf, to: &OwnedWriteHalf) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        from.readable().await?;
        let length = match from.try_read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut left = &bytes[..length];
        while !left.is_empty() {
            to.writable().await?;
            match to.try_write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes what is sent, until the other side gives up.
async fn fall_silent(mut client: TcpStream) -> io::Result<()> {
    let mut nowhere = vec![0; 16 * 1024];
    while client.read(&mut nowhere).await? > 0 {}
    client.shutdown().await
}
