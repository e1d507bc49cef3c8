//! Tells the owner of a sign-in from a new device: a security event and a mail with the link that ends it.

use super::model::{self, DisownToken};
use super::store;
use crate::account::model::User;
use crate::mail::{self, Letter, MailError, Written};
use crate::security_event::{self, EventKind, Origin};
use crate::session::device::Device;
use crate::session::model::Session;
use crate::{Auth, session};
use askama::Template;
use mana_platform::http::{ClientInfo, Language};
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::macros::format_description;

/// If the device of a session that was just inserted is new, writes the event, the link's token and the mail in
/// `connection`'s transaction. Hold the outcome until after the commit.
///
/// # Errors
/// When the database fails or the mail can't be rendered; the sign-in fails with it.
pub(crate) async fn announce_if_new(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    session: &Session,
    language: Language,
    origin: &Origin,
) -> Result<Written, MailError> {
    let earlier = session::store::list_earlier(connection, session).await?;
    if !model::is_new(session, user.created_at, &earlier) {
        return Ok(Written::nothing());
    }
    let kind = EventKind::NewDevice;
    security_event::record(connection, auth, kind, Some(&user.id), Some(&session.id), origin).await?;
    let token = DisownToken::generate(&*auth.rng);
    let letter = NewDevice {
        language,
        is_by_app: session.opened_by_app.is_some(),
        sign_in: SignIn::of(session, language),
        link: token.link(auth),
    };
    let written = mail::enqueue(connection, auth, Some(&user.id), &user.email, &letter).await?;
    // Of one that no mail tells of, the links that were mailed before take care.
    if written.is_a_mail() {
        store::insert_token(connection, token.hash(), &user.id, &session.id, session.created_at).await?;
    }
    Ok(written)
}

/// A sign-in as its owner is told of it. Of what the client said of itself only words of ours are shown: whoever has
/// stolen a password has no say in what the mail says. What an app is called, whoever made its key has said.
#[derive(Debug)]
pub(super) struct SignIn {
    /// When, to the minute, UTC.
    pub(super) when: String,
    /// From what.
    pub(super) device: String,
    /// From which address.
    pub(super) ip_address: Option<String>,
}

impl SignIn {
    pub(super) fn of(session: &Session, language: Language) -> Self {
        let device = session.user_agent.as_deref().map(Device::of).unwrap_or_default();
        let device = match (&session.opened_by_app, language) {
            (None, _) => device.in_words(language),
            (Some(app), Language::English) => format!("the app {app}, from its own server"),
            (Some(app), Language::German) => format!("die App {app}, von ihrem eigenen Server aus"),
        };
        Self { when: minute(session.created_at), device, ip_address: session.ip_address.clone() }
    }

    /// What a client does now.
    pub(super) fn of_client(client: &ClientInfo, now: OffsetDateTime, language: Language) -> Self {
        let device = client.user_agent.as_deref().map(Device::of).unwrap_or_default();
        Self {
            when: minute(now),
            device: device.in_words(language),
            ip_address: client.ip_address.map(|address| address.to_string()),
        }
    }

    /// In one line.
    pub(super) fn in_words(&self) -> String {
        let Self { when, device, ip_address } = self;
        ip_address.iter().fold(format!("{when}, {device}"), |line, address| format!("{line}, {address}"))
    }
}

/// As `2026-11-23 15:56 UTC`, which reads the same in every language.
fn minute(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    at.to_offset(time::UtcOffset::UTC).format(format).unwrap_or_default()
}

struct NewDevice {
    language: Language,
    /// An app opened it for the person.
    is_by_app: bool,
    sign_in: SignIn,
    link: String,
}

#[derive(Template)]
#[template(path = "mail/new_device.txt")]
struct Text<'a> {
    service_name: &'a str,
    letter: &'a NewDevice,
}

#[derive(Template)]
#[template(path = "mail/new_device.html")]
struct Html<'a> {
    service_name: &'a str,
    language: Language,
    letter: &'a NewDevice,
}

impl Letter for NewDevice {
    const TEMPLATE: &'static str = "new_device";

    fn subject(&self) -> &'static str {
        match self.language {
            Language::English => "New sign-in to your account",
            Language::German => "Neue Anmeldung bei deinem Konto",
        }
    }

    fn text(&self, service_name: &str) -> askama::Result<String> {
        Text { service_name, letter: self }.render()
    }

    fn html(&self, service_name: &str) -> askama::Result<String> {
        Html { service_name, language: self.language, letter: self }.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(language: Language, is_by_app: bool) -> NewDevice {
        NewDevice {
            language,
            is_by_app,
            sign_in: SignIn {
                when: minute(OffsetDateTime::UNIX_EPOCH),
                device: Device::default().in_words(language),
                ip_address: Some("2001:db8::1".to_owned()),
            },
            link: "https://auth.example.com/not-me?token=mnm_x".to_owned(),
        }
    }

    #[test]
    fn the_mail_says_the_same_in_both_languages_and_both_forms() {
        for (language, is_by_app, words) in [
            (Language::English, false, ["an unknown device", "wasn't you", "New sign-in"]),
            (Language::German, false, ["ein unbekanntes Gerät", "warst du das nicht", "Neue Anmeldung"]),
            (Language::English, true, ["an unknown device", "without a sign-in", "New sign-in"]),
            (Language::German, true, ["ein unbekanntes Gerät", "nicht erwartet", "Neue Anmeldung"]),
        ] {
            let letter = letter(language, is_by_app);
            let (text, html) =
                (letter.text("Mana").unwrap(), letter.html("Mana").unwrap().replace("&#39;", "'"));
            for expected in [
                "1970-01-01 00:00 UTC",
                words[0],
                "2001:db8::1",
                "https://auth.example.com/not-me?token=mnm_x",
            ] {
                assert!(text.contains(expected), "no {expected} in {text}");
                assert!(html.contains(expected), "no {expected} in {html}");
            }
            for said in [&text, &html] {
                assert!(said.to_lowercase().contains(words[1]), "no {} in {said}", words[1]);
                assert_ne!(is_by_app, said.to_lowercase().contains("passwor"), "{said}");
            }
            assert!(letter.subject().starts_with(words[2]));
            assert!(html.contains(&format!("lang=\"{}\"", language.tag())), "{html}");
            assert!(!text.contains('<') && !text.contains("\n\n\n"), "{text}");
            assert!(!html.contains("<img") && !html.contains("<script") && !html.contains("src="), "{html}");
        }
    }
}
