//! An SMTP server (RFC 5321) of a test's own, over TCP, with the manners that the test wants. In this process, because
//! no server that could be installed can be told to hang, refuse or hide STARTTLS at a step and to say what it heard.

use mana_platform::config::SmtpTls;
use mana_platform::mail::{MailSettings, Smtp};
use mana_platform::{Settings, SystemClock};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Takes what it gets, after STARTTLS.
    Kind,
    /// Does not offer STARTTLS.
    WithoutTls,
    /// Answers this to the sign-in.
    ToSignIn(&'static str),
    /// Answers this to the sender.
    ToSender(&'static str),
    /// Answers this to the recipient.
    ToRecipient(&'static str),
    /// Answers this to the mail itself.
    ToContent(&'static str),
    /// Accepts connections and says nothing.
    Silent,
    /// Says nothing after it got the mail.
    SilentAtTheEnd,
}

/// A mail as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) envelope: Vec<String>,
    pub(crate) content: String,
    pub(crate) was_encrypted: bool,
    pub(crate) was_signed_in: bool,
}

#[derive(Debug)]
struct Shared {
    manners: Mutex<Manners>,
    received: Mutex<Vec<Received>>,
    /// Every line that came in clear.
    in_clear: Mutex<Vec<String>>,
    connected: Notify,
    fell_silent: Notify,
}

/// The server; stops when dropped.
pub(crate) struct SmtpServer {
    shared: Arc<Shared>,
    port: u16,
    /// Until it listens: a port that nobody else gets, and that refuses whoever connects.
    socket: Option<TcpSocket>,
    certificate: tempfile::NamedTempFile,
    acceptor: TlsAcceptor,
    running: Option<JoinHandle<()>>,
}

impl SmtpServer {
    pub(crate) fn start(manners: Manners) -> Self {
        let mut server = Self::stopped(manners);
        server.resume();
        server
    }

    /// One that does not listen yet.
    pub(crate) fn stopped(manners: Manners) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let certificate = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(certificate.path(), cert.pem()).unwrap();
        let shared = Shared {
            manners: Mutex::new(manners),
            received: Mutex::default(),
            in_clear: Mutex::default(),
            connected: Notify::new(),
            fell_silent: Notify::new(),
        };
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self { shared: Arc::new(shared), port, socket: Some(socket), certificate, acceptor, running: None }
    }

    /// Listens from now on.
    pub(crate) fn resume(&mut self) {
        let listener = self.socket.take().unwrap().listen(128).unwrap();
        let (shared, acceptor) = (Arc::clone(&self.shared), self.acceptor.clone());
        self.running = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&shared), acceptor.clone()));
            }
        }));
    }

    /// A mailer that sends here, as the settings of an operator would make it.
    pub(crate) fn mailer(&self, patience: Duration) -> Arc<Smtp> {
        let mut settings = Settings::defaults().unwrap();
        self.name_in(&mut settings);
        let settings = MailSettings::from_settings(&settings).unwrap().unwrap();
        Arc::new(Smtp::new(settings, Arc::new(SystemClock)).with_patience(patience))
    }

    pub(crate) fn name_in(&self, settings: &mut Settings) {
        settings.smtp_host = Some("localhost".to_owned());
        settings.smtp_port = Some(self.port);
        settings.smtp_tls = Some(SmtpTls::Starttls);
        settings.smtp_ca_file = Some(self.certificate.path().to_owned());
        settings.smtp_user = Some("mana".to_owned());
        settings.smtp_password = Some("a password for mails".to_owned().into());
        settings.smtp_from = Some("Mana <mana@auth.example.com>".to_owned());
    }

    pub(crate) fn behave(&self, manners: Manners) {
        *self.shared.manners.lock().unwrap() = manners;
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub(crate) fn heard_in_clear(&self) -> Vec<String> {
        self.shared.in_clear.lock().unwrap().clone()
    }

    /// Waits for a connection.
    pub(crate) async fn connected(&self) {
        self.shared.connected.notified().await;
    }

    /// Waits until it says nothing where it should.
    pub(crate) async fn fell_silent(&self) {
        self.shared.fell_silent.notified().await;
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>, acceptor: TlsAcceptor) {
    shared.connected.notify_one();
    let mut in_clear = Conversation::new(stream, &shared, false);
    if in_clear.say("220 test ESMTP").await.is_none() || !in_clear.listen().await {
        return;
    }
    let Ok(stream) = acceptor.accept(in_clear.stream.into_inner()).await else { return };
    Conversation::new(stream, &shared, true).listen().await;
}

struct Conversation<'a, S> {
    stream: BufReader<S>,
    shared: &'a Shared,
    manners: Manners,
    is_encrypted: bool,
    is_signed_in: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Conversation<'a, S> {
    fn new(stream: S, shared: &'a Shared, is_encrypted: bool) -> Self {
        let manners = *shared.manners.lock().unwrap();
        Self { stream: BufReader::new(stream), shared, manners, is_encrypted, is_signed_in: false }
    }

    async fn say(&mut self, line: &str) -> Option<()> {
        if self.manners == Manners::Silent {
            self.shared.fell_silent.notify_one();
            return std::future::pending().await;
        }
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
        self.stream.flush().await.ok()
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line).await.ok()?;
        if !self.is_encrypted {
            self.shared.in_clear.lock().unwrap().push(line.clone());
        }
        (length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Until the other side hangs up; true when TLS is to begin.
    async fn listen(&mut self) -> bool {
        self.dialogue().await.unwrap_or(false)
    }

    async fn dialogue(&mut self) -> Option<bool> {
        let mut envelope = Vec::new();
        loop {
            let line = self.line().await?;
            let answer = match (line.split([' ', ':']).next()?, self.manners) {
                ("EHLO", Manners::WithoutTls) => "250-test\r\n250 AUTH PLAIN LOGIN",
                ("EHLO", _) if self.is_encrypted => "250-test\r\n250 AUTH PLAIN LOGIN",
                ("EHLO", _) => "250-test\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN",
                ("STARTTLS", manners) if manners != Manners::WithoutTls => {
                    self.say("220 go on").await?;
                    return Some(true);
                }
                ("AUTH", Manners::ToSignIn(answer))
                | ("MAIL", Manners::ToSender(answer))
                | ("RCPT", Manners::ToRecipient(answer)) => answer,
                ("AUTH", _) => {
                    self.is_signed_in = true;
                    "235 welcome"
                }
                ("MAIL" | "RCPT", _) => {
                    envelope.push(line);
                    "250 fine"
                }
                ("DATA", _) => {
                    self.say("354 go on").await?;
                    self.content(std::mem::take(&mut envelope)).await?;
                    continue;
                }
                ("QUIT", _) => {
                    self.say("221 bye").await?;
                    return None;
                }
                _ => "502 what?",
            };
            self.say(answer).await?;
        }
    }

    async fn content(&mut self, envelope: Vec<String>) -> Option<()> {
        let mut content = String::new();
        loop {
            match self.line().await? {
                end if end == "." => break,
                line => content.extend([line.strip_prefix('.').unwrap_or(&line), "\r\n"]),
            }
        }
        if let Manners::ToContent(answer) = self.manners {
            return self.say(answer).await;
        }
        if self.manners == Manners::SilentAtTheEnd {
            self.shared.fell_silent.notify_one();
            return std::future::pending().await;
        }
        self.shared.received.lock().unwrap().push(Received {
            envelope,
            content,
            was_encrypted: self.is_encrypted,
            was_signed_in: self.is_signed_in,
        });
        self.say("250 taken").await
    }
}
