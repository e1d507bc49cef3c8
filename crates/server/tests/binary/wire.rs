//! A proxy before PostgreSQL that cuts a connection around the COMMIT of a chosen transaction, lets it fall silent, or takes its time.

use crate::cluster::SERVICE_PASSWORD_IN_URL;
use crate::process::listen;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream, UnixStream, tcp};
use tokio::runtime::Runtime;

/// The message of a client that has sqlx commit.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
/// The message of one that has it roll back.
const ROLLBACK: &[u8] = b"Q\0\0\0\x0dROLLBACK\0";

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is closed; PostgreSQL never hears of the commit.
    BeforeCommit,
    /// PostgreSQL commits, its answer goes nowhere, and the connection is closed.
    AfterCommit,
    /// Nothing is passed on any more, in either direction, and neither side hears of it: from the statement on that writes the
    /// text.
    SilentInBatch,
    /// The same from the commit on.
    SilentBeforeCommit,
    /// The same from the answer to the commit on.
    SilentAfterCommit,
}

impl Cut {
    fn is_silent(self) -> bool {
        matches!(self, Self::SilentInBatch | Self::SilentBeforeCommit | Self::SilentAfterCommit)
    }
}

/// The next transaction to be cut: the first that writes this text.
type Next = Arc<Mutex<Option<(Cut, &'static str)>>>;

/// Listens on TCP as long as it is there.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    next: Next,
    delay_millis: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Proxy {
    /// Before the PostgreSQL at this socket.
    pub(crate) fn start(socket: PathBuf) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = listen();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Next::default();
        let delay_millis = Arc::<AtomicU64>::default();
        let (chosen, delay) = (Arc::clone(&next), Arc::clone(&delay_millis));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(relay(client, server, Arc::clone(&chosen), Arc::clone(&delay)));
            }
        });
        Self { port, next, delay_millis, _runtime: runtime }
    }

    /// For `DATABASE_URL`, in place of the cluster's own.
    pub(crate) fn service_url(&self, database: &str) -> String {
        let port = self.port;
        format!(
            "postgres://mana_service:{SERVICE_PASSWORD_IN_URL}@127.0.0.1:{port}/{database}?sslmode=disable"
        )
    }

    /// Keeps each answer of PostgreSQL back for so long from now on.
    pub(crate) fn delay(&self, by: Duration) {
        self.delay_millis.store(by.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    /// Cuts the next transaction that writes `text`.
    pub(crate) fn cut(&self, cut: Cut, text: &'static str) {
        *self.next.lock().unwrap() = Some((cut, text));
    }

    /// Whether that is still to come.
    pub(crate) fn is_waiting(&self) -> bool {
        self.next.lock().unwrap().is_some()
    }
}

/// Ends, and with it the connection, when either side does or when it is cut.
async fn relay(
    client: TcpStream,
    server: UnixStream,
    next: Next,
    delay_millis: Arc<AtomicU64>,
) -> io::Result<()> {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let is_silent = Arc::new(AtomicBool::new(false));
    let stays_open = Arc::new(AtomicBool::new(false));
    tokio::spawn(answer(
        from_server,
        to_client,
        (Arc::clone(&is_silent), Arc::clone(&stays_open)),
        delay_millis,
    ));
    // The first message has no type before its length.
    let length = from_client.read_u32().await?;
    let mut message = length.to_be_bytes().to_vec();
    let mut is_chosen = false;
    loop {
        // The length counts itself.
        let length = u32::from_be_bytes(*message.last_chunk().unwrap()).saturating_sub(4);
        let mut rest = vec![0; usize::try_from(length).unwrap()];
        from_client.read_exact(&mut rest).await?;
        message.extend(rest);
        let cut = next.lock().unwrap().map(|(cut, text)| (cut, contains(&message, text)));
        is_chosen |= cut.is_some_and(|(_, is_written)| is_written);
        // What only read does not commit; the next transaction on this connection is another's.
        is_chosen &= message != ROLLBACK;
        let is_due = message == COMMIT || cut.is_some_and(|(cut, _)| cut == Cut::SilentInBatch);
        if is_due && is_chosen {
            is_chosen = false;
            let cut = next.lock().unwrap().take();
            if let Some((cut, _)) = cut {
                if cut == Cut::BeforeCommit {
                    return Ok(());
                }
                stays_open.store(cut.is_silent(), Ordering::SeqCst);
                is_silent.store(true, Ordering::SeqCst);
                if matches!(cut, Cut::SilentInBatch | Cut::SilentBeforeCommit) {
                    return std::future::pending().await;
                }
            }
        }
        to_server.write_all(&message).await?;
        message = vec![from_client.read_u8().await?];
        message.extend(from_client.read_u32().await?.to_be_bytes());
    }
}

/// Passes answers on until the first that is not to be heard.
async fn answer(
    mut from_server: OwnedReadHalf,
    mut to_client: tcp::OwnedWriteHalf,
    (is_silent, stays_open): (Arc<AtomicBool>, Arc<AtomicBool>),
    delay_millis: Arc<AtomicU64>,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let length = from_server.read(&mut bytes).await?;
        if stays_open.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if length == 0 || is_silent.load(Ordering::SeqCst) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(delay_millis.load(Ordering::SeqCst))).await;
        to_client.write_all(&bytes[..length]).await?;
    }
}

fn contains(message: &[u8], text: &str) -> bool {
    message.windows(text.len()).any(|window| window == text.as_bytes())
}
