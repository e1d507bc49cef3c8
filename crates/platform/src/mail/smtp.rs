//! Mails over SMTP, to the one server that the operator names.
//!
//! The dialogue is spoken step by step, because the step decides what a refusal means: a 5xx to the recipient or to the
//! mail itself may be about this mail, if its codes say so; any other 5xx is about the set-up or the server's opinion of
//! this machine, and passes once that is mended.

use super::{InvalidRecipient, Mailer, Message, SendError, Sending, Taken};
use crate::Settings;
use crate::config::SmtpTls;
use crate::telemetry::spans;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters, TlsVersion,
};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use mana_kernel::Clock;
use secrecy::{ExposeSecret as _, SecretString};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tracing::Instrument as _;

/// A mail that is not handed over by then counts as not sent.
const PATIENCE: Duration = Duration::from_secs(50);

/// The settings of mail can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MailSettingsError {
    /// A server without a sender.
    #[error("SMTP_HOST is set and SMTP_FROM is not: give the address that mails come from")]
    NoSender,
    /// A sender, user, password, port, security or authority without a server.
    #[error("{0} is set and SMTP_HOST is not: name the server, or leave {0} out to send no mails")]
    NoHost(&'static str),
    /// The sender is no address.
    #[error("SMTP_FROM must be an address like mana@example.com or Mana <mana@example.com>")]
    Sender,
    /// Half a sign-in.
    #[error("SMTP_USER and SMTP_PASSWORD belong together: give both or neither")]
    HalfASignIn,
    /// In clear to another machine.
    #[error(
        "SMTP_TLS=none is for a relay on this machine only (localhost, 127.0.0.1 or ::1): mails carry links that open accounts"
    )]
    InClear,
    /// No certificates there.
    #[error("SMTP_CA_FILE names {0}, which has no certificate in PEM that can be read")]
    Authority(PathBuf),
    /// The server's name can't be checked against a certificate.
    #[error("SMTP_HOST must be a host name or an IP address: {0}")]
    Host(String),
}

/// Where mails go, checked.
#[derive(Debug)]
pub struct MailSettings {
    host: String,
    port: u16,
    security: Security,
    sign_in: Option<(String, SecretString)>,
    sender: Mailbox,
}

enum Security {
    None,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::StartTls(_) => "StartTls",
            Self::Tls(_) => "Tls",
        })
    }
}

impl MailSettings {
    /// The server that the settings name; none without `SMTP_HOST`.
    ///
    /// # Errors
    /// When they are incomplete, contradict each other or would send mails in clear over a network.
    pub fn from_settings(settings: &Settings) -> Result<Option<Self>, MailSettingsError> {
        let Some(host) = settings.smtp_host.clone() else {
            let stray = [
                ("SMTP_FROM", settings.smtp_from.is_some()),
                ("SMTP_USER", settings.smtp_user.is_some()),
                ("SMTP_PASSWORD", settings.smtp_password.is_some()),
                ("SMTP_PORT", settings.smtp_port.is_some()),
                ("SMTP_TLS", settings.smtp_tls.is_some()),
                ("SMTP_CA_FILE", settings.smtp_ca_file.is_some()),
            ];
            return match stray.into_iter().find(|(_, is_set)| *is_set) {
                Some((name, _)) => Err(MailSettingsError::NoHost(name)),
                None => Ok(None),
            };
        };
        let sender = settings.smtp_from.as_deref().ok_or(MailSettingsError::NoSender)?;
        let sender = sender.parse().map_err(|_| MailSettingsError::Sender)?;
        let sign_in = match (&settings.smtp_user, &settings.smtp_password) {
            (Some(user), Some(password)) => Some((user.clone(), password.clone())),
            (None, None) => None,
            _ => return Err(MailSettingsError::HalfASignIn),
        };
        let implied = if settings.smtp_port == Some(465) { SmtpTls::Tls } else { SmtpTls::Starttls };
        let (security, usual_port) = match settings.smtp_tls.unwrap_or(implied) {
            SmtpTls::None if !is_loopback(&host) => return Err(MailSettingsError::InClear),
            SmtpTls::None => (Security::None, 25),
            SmtpTls::Starttls => (Security::StartTls(tls(&host, settings)?), 587),
            SmtpTls::Tls => (Security::Tls(tls(&host, settings)?), 465),
        };
        Ok(Some(Self { host, port: settings.smtp_port.unwrap_or(usual_port), security, sign_in, sender }))
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tls(host: &str, settings: &Settings) -> Result<TlsParameters, MailSettingsError> {
    let mut parameters = TlsParameters::builder(host.to_owned()).set_min_tls_version(TlsVersion::Tlsv12);
    if let Some(path) = &settings.smtp_ca_file {
        let unusable = || MailSettingsError::Authority(path.clone());
        let pem = std::fs::read(path).map_err(|_| unusable())?;
        if !pem.windows(27).any(|line| line == b"-----BEGIN CERTIFICATE-----") {
            return Err(unusable());
        }
        let authority = Certificate::from_pem(&pem).map_err(|_| unusable())?;
        parameters = parameters.certificate_store(CertificateStore::None).add_root_certificate(authority);
    }
    parameters.build_rustls().map_err(|error| MailSettingsError::Host(error.to_string()))
}

/// A server that takes mails.
#[derive(Debug)]
pub struct Smtp {
    settings: MailSettings,
    clock: Arc<dyn Clock>,
    patience: Duration,
}

impl Smtp {
    /// The server of the settings. It is not asked anything yet.
    pub fn new(settings: MailSettings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clock, patience: PATIENCE }
    }

    /// The same with less patience.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    async fn hand_over(&self, mail: &Message) -> Result<Taken, SendError> {
        let recipient = mail.recipient.address().map_err(|error| refused(&error))?;
        let content = self.compose(mail).map_err(|error| refused(&error))?;
        let mut connection = self.connect().await.map_err(|error| not_now(&error))?;
        let mut parameters = Vec::new();
        if !mail.recipient.as_str().is_ascii() {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                connection.abort().await;
                return Err(SendError::Refused(
                    "the SMTP server takes no addresses with other than ASCII letters".to_owned(),
                ));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let sender = self.settings.sender.email.clone();
        let outcome = async {
            connection.command(Mail::new(Some(sender), parameters)).await.map_err(|error| not_now(&error))?;
            connection
                .command(Rcpt::new(recipient, Vec::new()))
                .await
                .map_err(|error| of_this_mail(&error))?;
            connection.command(Data).await.map_err(|error| not_now(&error))?;
            connection.message(&content).await.map_err(|error| of_this_mail(&error))
        }
        .await;
        if outcome.is_ok() {
            // The mail is theirs now, whatever becomes of the good-bye.
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.abort()).await;
        }
        outcome.map(|_| Taken::HandedOn)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, lettre::transport::smtp::Error> {
        let MailSettings { host, port, security, sign_in, sender } = &self.settings;
        let name = ClientId::Domain(sender.email.domain().to_owned());
        let implicit = match security {
            Security::Tls(parameters) => Some(parameters.clone()),
            Security::None | Security::StartTls(_) => None,
        };
        let limit = Some(self.patience);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1((host.as_str(), *port), limit, &name, implicit, None).await?;
        if let Security::StartTls(parameters) = security {
            connection.starttls(parameters.clone(), &name).await?;
        }
        if let Some((user, password)) = sign_in {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            connection.auth(DEFAULT_MECHANISMS, &credentials).await?;
        }
        Ok(connection)
    }

    /// The mail as bytes of ASCII: headers encoded, bodies quoted-printable or base64.
    fn compose(&self, mail: &Message) -> Result<Vec<u8>, ComposeError> {
        let sender = &self.settings.sender;
        let composed = lettre::Message::builder()
            .message_id(Some(format!("<{}@{}>", mail.id, sender.email.domain())))
            .date(SystemTime::from(self.clock.now()))
            .from(sender.clone())
            .to(Mailbox::new(None, mail.recipient.address()?))
            .subject(mail.subject.as_str())
            .header(AutoSubmitted)
            .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))?;
        Ok(composed.formatted())
    }
}

impl Mailer for Smtp {
    fn send<'a>(&'a self, mail: &'a Message) -> Sending<'a> {
        Box::pin(async move {
            let call = spans::call("smtp", None, &self.settings.host);
            let handed_over = self.hand_over(mail).instrument(call.clone());
            let outcome = tokio::time::timeout(self.patience, handed_over).await.unwrap_or_else(|_| {
                Err(SendError::NotNow(format!(
                    "the SMTP server did not take it within {} s",
                    self.patience.as_secs()
                )))
            });
            spans::call_ended(&call, &outcome);
            outcome
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum ComposeError {
    #[error(transparent)]
    Recipient(#[from] InvalidRecipient),
    #[error("the mail can't be put together: {0}")]
    Parts(#[from] lettre::error::Error),
}

fn not_now(error: &dyn std::error::Error) -> SendError {
    SendError::NotNow(format!("SMTP: {error}"))
}

fn refused(error: &dyn std::error::Error) -> SendError {
    SendError::Refused(error.to_string())
}

/// The answer to the recipient or to the mail itself: for ever if the server says that it is about them.
fn of_this_mail(error: &lettre::transport::smtp::Error) -> SendError {
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let code = error.status().map(u16::from).unwrap_or_default();
    if error.is_permanent() && is_of_this_mail(code, &text) {
        SendError::Refused(format!("SMTP: {error}"))
    } else {
        not_now(error)
    }
}

/// Whether a 5xx answer says that this mail won't ever be taken for this recipient: the mailbox is none or takes none
/// (RFC 3463: 5.1 and 5.2, but for 5.1.7 and 5.1.8, which are about the sender), or the mail is too big (5.3.4). A server
/// without enhanced codes says so with its reply code. All else, above all 5.7 (relaying denied, a host on a list), is
/// said of every mail alike, and would empty the queue.
fn is_of_this_mail(code: u16, text: &str) -> bool {
    match enhanced(text) {
        Some((1, detail)) => !matches!(detail, 7 | 8),
        Some((2, _) | (3, 4)) => true,
        Some(_) => false,
        None => matches!(code, 550..=553),
    }
}

/// Subject and detail of the enhanced code that the text of a 5xx answer begins with (RFC 2034), if it has one.
fn enhanced(text: &str) -> Option<(u16, u16)> {
    let mut parts = text.split_whitespace().next()?.strip_prefix("5.")?.splitn(2, '.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Keeps automatic replies from coming back (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_this_mail;

    #[test]
    fn only_what_is_about_the_mailbox_or_the_mail_is_for_ever() {
        for (code, text) in [
            (550, "5.1.1 <ada@example.com> unknown"),
            (550, "5.1.10 null MX"),
            (552, "5.2.2 mailbox full"),
            (554, "5.2.1 mailbox disabled"),
            (552, "5.3.4 too big"),
            (550, "no such user here"),
            (553, "bad name"),
            (550, ""),
        ] {
            assert!(is_of_this_mail(code, text), "{code} {text}");
        }
        for (code, text) in [
            (554, "5.7.1 <mx.example.com[203.0.113.1]>: Client host rejected: Access denied"),
            (554, "5.7.1 <ada@example.com>: Relay access denied"),
            (550, "5.7.1 blocked, see a list"),
            (550, "5.1.8 sender domain not found"),
            (553, "5.1.7 sender address"),
            (552, "5.3.1 system full"),
            (501, "5.5.4 arguments"),
            (554, "transaction failed"),
            (503, "bad sequence"),
        ] {
            assert!(!is_of_this_mail(code, text), "{code} {text}");
        }
    }
}
