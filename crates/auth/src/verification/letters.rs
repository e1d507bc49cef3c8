//! What the mails say. Nothing that a client said of itself is in them: whoever asks for a mail has no say in its words.

use crate::auto_top_up::PausedFor;
use crate::mail::Letter;
use askama::Template;
use mana_platform::http::Language;

/// A mail in its reader's language: a few lines, a link or a code, a few lines.
pub(super) struct Words<'a> {
    subject: &'static str,
    before: Vec<String>,
    link: Option<(&'static str, &'a str)>,
    code: Option<&'a str>,
    after: Vec<&'static str>,
}

/// A letter by its words alone.
pub(super) trait Worded {
    /// As [`Letter::TEMPLATE`].
    const KIND: &'static str;

    /// Its reader's.
    fn language(&self) -> Language;

    /// What it says.
    fn words(&self) -> Words<'_>;
}

#[derive(Template)]
#[template(path = "mail/words.txt")]
struct Text<'a> {
    service_name: &'a str,
    words: Words<'a>,
}

#[derive(Template)]
#[template(path = "mail/words.html")]
struct Html<'a> {
    service_name: &'a str,
    language: Language,
    words: Words<'a>,
}

impl<T: Worded> Letter for T {
    const TEMPLATE: &'static str = T::KIND;

    fn subject(&self) -> &'static str {
        self.words().subject
    }

    fn text(&self, service_name: &str) -> askama::Result<String> {
        Text { service_name, words: self.words() }.render()
    }

    fn html(&self, service_name: &str) -> askama::Result<String> {
        Html { service_name, language: self.language(), words: self.words() }.render()
    }
}

const NOT_YOU: [&str; 2] = [
    "If you did not ask for this, there is nothing to do: without this mail nothing happens.",
    "Hast du das nicht angefordert, ist nichts zu tun: Ohne diese Mail passiert nichts.",
];

/// One of two, by language.
fn either<T: Copy>(language: Language, [english, german]: [T; 2]) -> T {
    match language {
        Language::English => english,
        Language::German => german,
    }
}

/// Confirms the address of a new account.
pub(super) struct VerifyEmail {
    pub(super) language: Language,
    pub(super) link: String,
}

impl Worded for VerifyEmail {
    const KIND: &'static str = "verify_email";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        Words {
            subject: say(["Confirm your e-mail address", "Bestätige deine E-Mail-Adresse"]),
            before: vec![
                say([
                    "An account was made with this address. The link leads to a button that confirms it, within 24 hours.",
                    "Mit dieser Adresse wurde ein Konto angelegt. Der Link führt zu einem Knopf, der sie bestätigt, innerhalb von 24 Stunden.",
                ])
                .to_owned(),
            ],
            link: Some((say(["Confirm the address", "Adresse bestätigen"]), &self.link)),
            code: None,
            after: vec![say([
                "If it wasn't you who made the account, set a new password there: then it is yours alone. Or leave it: without this mail nothing happens.",
                "Hast du das Konto nicht angelegt, setz dort ein neues Passwort: Dann gehört es dir allein. Oder lass es: Ohne diese Mail passiert nichts.",
            ])],
        }
    }
}

/// Sets a new password.
pub(super) struct ResetPassword {
    pub(super) language: Language,
    pub(super) link: String,
}

impl Worded for ResetPassword {
    const KIND: &'static str = "reset_password";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        Words {
            subject: say(["Set a new password", "Neues Passwort setzen"]),
            before: vec![
                say([
                    "Somebody asked to set a new password for the account with this address. The link is good once, within an hour.",
                    "Jemand möchte für das Konto mit dieser Adresse ein neues Passwort setzen. Der Link gilt einmal, innerhalb einer Stunde.",
                ])
                .to_owned(),
            ],
            link: Some((say(["Set a new password", "Neues Passwort setzen"]), &self.link)),
            code: None,
            after: vec![say(NOT_YOU)],
        }
    }
}

/// Signs in by a click.
pub(super) struct MagicLink {
    pub(super) language: Language,
    pub(super) link: String,
}

impl Worded for MagicLink {
    const KIND: &'static str = "magic_link";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        Words {
            subject: say(["Your link to sign in", "Dein Link zur Anmeldung"]),
            before: vec![
                say([
                    "The link leads to a button that signs you in. It is good once, within ten minutes.",
                    "Der Link führt zu einem Knopf, der dich anmeldet. Er gilt einmal, innerhalb von zehn Minuten.",
                ])
                .to_owned(),
            ],
            link: Some((say(["Sign in", "Anmelden"]), &self.link)),
            code: None,
            after: vec![say(NOT_YOU)],
        }
    }
}

/// Signs in by six digits.
pub(super) struct EmailCode {
    pub(super) language: Language,
    pub(super) code: String,
}

impl Worded for EmailCode {
    const KIND: &'static str = "sign_in_code";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        Words {
            subject: say(["Your code to sign in", "Dein Code zur Anmeldung"]),
            before: vec![
                say([
                    "This code signs you in. It is good once, within ten minutes.",
                    "Mit diesem Code meldest du dich an. Er gilt einmal, innerhalb von zehn Minuten.",
                ])
                .to_owned(),
            ],
            link: None,
            code: Some(&self.code),
            after: vec![
                say([
                    "Nobody will ever ask you for it: type it only where you have just asked to sign in.",
                    "Niemand wird dich je danach fragen: Gib ihn nur dort ein, wo du dich gerade anmelden wolltest.",
                ]),
                say(NOT_YOU),
            ],
        }
    }
}

/// Gives an account the address that this is mailed to.
pub(super) struct ChangeEmail {
    pub(super) language: Language,
    pub(super) link: String,
}

impl Worded for ChangeEmail {
    const KIND: &'static str = "change_email";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        Words {
            subject: say(["Confirm your new e-mail address", "Bestätige deine neue E-Mail-Adresse"]),
            before: vec![
                say([
                    "An account is to have this address from now on. The link leads to a button that confirms it, within 24 hours.",
                    "Ein Konto soll von jetzt an diese Adresse haben. Der Link führt zu einem Knopf, der sie bestätigt, innerhalb von 24 Stunden.",
                ])
                .to_owned(),
            ],
            link: Some((say(["Confirm the new address", "Neue Adresse bestätigen"]), &self.link)),
            code: None,
            after: vec![say(NOT_YOU)],
        }
    }
}

/// Tells the old address of a new one: when it was asked for, and when it is the account's.
pub(super) struct EmailChanges {
    pub(super) language: Language,
    /// Not so much of it that a stranger who reads this could write there.
    pub(super) masked: String,
    pub(super) is_done: bool,
}

impl Worded for EmailChanges {
    const KIND: &'static str = "email_changes";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        let masked = &self.masked;
        let (subject, line, after) = if self.is_done {
            (
                ["The address of your account was changed", "Die Adresse deines Kontos wurde geändert"],
                [
                    format!("Your account has another address now: {masked}. No mail comes here any more."),
                    format!(
                        "Dein Konto hat jetzt eine andere Adresse: {masked}. Hierher kommt keine Mail mehr."
                    ),
                ],
                [
                    "If it wasn't you, somebody else has your account: write to the operator of the app at once.",
                    "Warst du das nicht, hat jemand anders dein Konto: Schreib sofort dem Betreiber der App.",
                ],
            )
        } else {
            (
                ["Your account is to have another address", "Dein Konto soll eine andere Adresse bekommen"],
                [
                    format!(
                        "Somebody who is signed in to your account wants to change its address to {masked}. It changes once that is confirmed from there."
                    ),
                    format!(
                        "Jemand, der bei deinem Konto angemeldet ist, möchte die Adresse auf {masked} ändern. Sie ändert sich, sobald das von dort bestätigt wird."
                    ),
                ],
                [
                    "If it wasn't you, set a new password now, by \"forgot password\": that stops the change and signs everybody out.",
                    "Warst du das nicht, setze jetzt über \"Passwort vergessen\" ein neues Passwort: Das verhindert die Änderung und meldet alle ab.",
                ],
            )
        };
        let [english, german] = line;
        let line = match self.language {
            Language::English => english,
            Language::German => german,
        };
        Words { subject: say(subject), before: vec![line], link: None, code: None, after: vec![say(after)] }
    }
}

/// Tells the owner of a new password.
pub(crate) struct PasswordChanged {
    pub(crate) language: Language,
}

impl Worded for PasswordChanged {
    const KIND: &'static str = "password_changed";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        Words {
            subject: say(["Your password was changed", "Dein Passwort wurde geändert"]),
            before: vec![
                say([
                    "The password of your account is a new one. All other devices are signed out.",
                    "Das Passwort deines Kontos ist ein neues. Alle anderen Geräte sind abgemeldet.",
                ])
                .to_owned(),
            ],
            link: None,
            code: None,
            after: vec![
                say([
                    "If it wasn't you, set another one now, by \"forgot password\".",
                    "Warst du das nicht, setze jetzt über \"Passwort vergessen\" ein anderes.",
                ]),
                say([
                    "If a mail told you of a sign-in or a change that you did not know, use its link as well, within three days of that mail, also now that the sign-in has ended: it takes away what a stranger may have added there.",
                    "Kam eine Mail über eine Anmeldung oder Änderung, die du nicht kanntest, verwende auch ihren Link, innerhalb von drei Tagen nach jener Mail, selbst wenn die Anmeldung jetzt beendet ist: Er entfernt, was ein Fremder dort hinzugefügt haben kann.",
                ]),
            ],
        }
    }
}

/// What was changed about what opens an account.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ProtectionChange<'a> {
    /// A passkey signs in from now on.
    PasskeyAdded,
    /// One does no more.
    PasskeyRemoved,
    /// A service of this name signs in from now on.
    ServiceLinked(&'a str),
    /// It does no more.
    ServiceUnlinked(&'a str),
    /// Sign-ins ask for a second factor.
    SecondFactorOn,
    /// They do no more.
    SecondFactorOff,
    /// There are new codes on paper.
    RecoveryCodesMade,
}

impl ProtectionChange<'_> {
    fn in_words(self, language: Language) -> (&'static str, String) {
        let say = |words: [&'static str; 2]| either(language, words);
        let (subject, line) = match self {
            Self::PasskeyAdded => (
                ["A passkey was added to your account", "Zu deinem Konto kam ein Passkey hinzu"],
                [
                    "Your account has a new passkey. It signs in from now on.",
                    "Dein Konto hat einen neuen Passkey. Mit ihm kann man sich ab jetzt anmelden.",
                ],
            ),
            Self::PasskeyRemoved => (
                ["A passkey of your account was removed", "Ein Passkey deines Kontos wurde entfernt"],
                [
                    "A passkey of your account was removed. It signs in no more.",
                    "Ein Passkey deines Kontos wurde entfernt. Mit ihm kann man sich nicht mehr anmelden.",
                ],
            ),
            Self::ServiceLinked(_) => (
                ["A service was linked to your account", "Mit deinem Konto wurde ein Dienst verknüpft"],
                [
                    "From now on, your account opens by a sign-in there:",
                    "Ab jetzt öffnet eine Anmeldung dort dein Konto:",
                ],
            ),
            Self::ServiceUnlinked(_) => (
                [
                    "A service was unlinked from your account",
                    "Ein Dienst ist nicht mehr mit deinem Konto verknüpft",
                ],
                [
                    "Your account no longer opens by a sign-in there:",
                    "Eine Anmeldung dort öffnet dein Konto nicht mehr:",
                ],
            ),
            Self::SecondFactorOn => (
                [
                    "Sign-ins to your account ask for a code now",
                    "Anmeldungen bei deinem Konto verlangen jetzt einen Code",
                ],
                [
                    "An authenticator app was set up for your account. Whoever signs in needs its code.",
                    "Für dein Konto wurde eine Authenticator-App eingerichtet. Wer sich anmeldet, braucht ihren Code.",
                ],
            ),
            Self::SecondFactorOff => (
                [
                    "Sign-ins to your account ask for no code any more",
                    "Anmeldungen bei deinem Konto verlangen keinen Code mehr",
                ],
                [
                    "The second factor of your account was switched off.",
                    "Der zweite Faktor deines Kontos wurde abgeschaltet.",
                ],
            ),
            Self::RecoveryCodesMade => (
                ["Your account has new recovery codes", "Dein Konto hat neue Wiederherstellungscodes"],
                [
                    "New recovery codes were made for your account. Those from before are void.",
                    "Für dein Konto gibt es neue Wiederherstellungscodes. Die bisherigen gelten nicht mehr.",
                ],
            ),
        };
        let line = match self {
            Self::ServiceLinked(name) | Self::ServiceUnlinked(name) => format!("{} {name}.", say(line)),
            Self::PasskeyAdded
            | Self::PasskeyRemoved
            | Self::SecondFactorOn
            | Self::SecondFactorOff
            | Self::RecoveryCodesMade => say(line).to_owned(),
        };
        (say(subject), line)
    }
}

/// Tells the owner of a change to what opens the account.
pub(crate) struct ProtectionChanged<'a> {
    pub(crate) language: Language,
    pub(crate) change: ProtectionChange<'a>,
    /// When and from where, in words of ours.
    pub(crate) by: String,
    /// Ends the session that made it, if one did.
    pub(crate) link: Option<String>,
}

impl Worded for ProtectionChanged<'_> {
    const KIND: &'static str = "protection_changed";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        let (subject, line) = self.change.in_words(self.language);
        let label = say(["This was not me", "Das war ich nicht"]);
        let after = if self.link.is_some() {
            [
                "If it was you, there is nothing to do. If it wasn't you, the link leads to a button that ends that sign-in and takes away what was added in it: passkeys, an authenticator app and its codes within three days only. Then set a new password.",
                "Warst du es selbst, ist nichts zu tun. Warst du es nicht, führt der Link zu einem Knopf, der diese Anmeldung beendet und entfernt, was dabei hinzugefügt wurde: Passkeys, eine Authenticator-App und ihre Codes nur innerhalb von drei Tagen. Setz danach ein neues Passwort.",
            ]
        } else {
            [
                "If it was you, there is nothing to do. If it wasn't you, look at what opens your account in the app, and set a new password.",
                "Warst du es selbst, ist nichts zu tun. Warst du es nicht, sieh in der App nach, was dein Konto öffnet, und setz ein neues Passwort.",
            ]
        };
        Words {
            subject,
            before: vec![line, self.by.clone()],
            link: self.link.as_deref().map(|link| (label, link)),
            code: None,
            after: vec![say(after)],
        }
    }
}

/// What a link took away of what opened an account.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Taken<'a> {
    /// The authenticator app with all codes on paper.
    App,
    /// Codes on paper alone.
    RecoveryCodes,
    /// So many.
    Passkeys(usize),
    /// The link of a service of this name.
    Service(&'a str),
}

impl Taken<'_> {
    fn in_words(self, language: Language) -> String {
        let say = |words: [&'static str; 2]| either(language, words).to_owned();
        match self {
            Self::App => say([
                "The authenticator app and its recovery codes. Sign-ins ask for no code any more.",
                "Die Authenticator-App und ihre Wiederherstellungscodes. Anmeldungen verlangen keinen Code mehr.",
            ]),
            Self::RecoveryCodes => say(["Recovery codes.", "Wiederherstellungscodes."]),
            Self::Passkeys(1) => say(["A passkey.", "Ein Passkey."]),
            Self::Passkeys(number) => format!("{number} {}", say(["passkeys.", "Passkeys."])),
            Self::Service(name) => {
                format!("{} {name}.", say(["The link to a service:", "Die Verknüpfung mit einem Dienst:"]))
            }
        }
    }
}

/// Tells the owner of what "this was not me" took away: whoever pressed it reads the mailbox.
pub(crate) struct TakenAway<'a> {
    pub(crate) language: Language,
    pub(crate) taken: Vec<Taken<'a>>,
    /// When and from where, in words of ours.
    pub(crate) by: String,
}

impl Worded for TakenAway<'_> {
    const KIND: &'static str = "taken_away";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        let first = say([
            "Somebody said by the link of a mail that a sign-in to your account was a stranger's. What was added there was taken away:",
            "Jemand hat über den Link einer Mail gesagt, dass eine Anmeldung bei deinem Konto von jemand Fremdem war. Was dort hinzugefügt wurde, wurde entfernt:",
        ]);
        let taken = self.taken.iter().map(|taken| taken.in_words(self.language));
        Words {
            subject: say([
                "What was added to your account was taken away",
                "Was zu deinem Konto hinzukam, wurde entfernt",
            ]),
            before: std::iter::once(first.to_owned())
                .chain(taken)
                .chain(std::iter::once(self.by.clone()))
                .collect(),
            link: None,
            code: None,
            after: vec![
                say([
                    "If it was you, set a new password, if you have not yet.",
                    "Warst du es selbst, setz ein neues Passwort, falls noch nicht geschehen.",
                ]),
                say([
                    "If it wasn't you, somebody else reads your mails. Secure your mailbox first, then set a new password for your account and set up again what is missing.",
                    "Warst du es nicht, liest jemand anders deine Mails. Sichere zuerst dein Postfach, setz dann ein neues Passwort für dein Konto und richte wieder ein, was fehlt.",
                ]),
            ],
        }
    }
}

/// Says goodbye.
pub(crate) struct AccountDeleted {
    pub(crate) language: Language,
}

impl Worded for AccountDeleted {
    const KIND: &'static str = "account_deleted";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        Words {
            subject: say(["Your account was deleted", "Dein Konto wurde gelöscht"]),
            before: vec![
                say([
                    "Your account is deleted, and what we knew about you with it. The books of mana go on without your name.",
                    "Dein Konto ist gelöscht, und damit alles, was wir über dich wussten. Die Bücher über Mana gehen ohne deinen Namen weiter.",
                ])
                .to_owned(),
            ],
            link: None,
            code: None,
            after: vec![say([
                "You can make a new account with this address at any time.",
                "Du kannst mit dieser Adresse jederzeit ein neues Konto anlegen.",
            ])],
        }
    }
}

/// Says that little mana is left.
pub(crate) struct LowBalance {
    pub(crate) language: Language,
    pub(crate) available: i64,
    pub(crate) below: i64,
}

impl Worded for LowBalance {
    const KIND: &'static str = "low_balance";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        let Self { available, below, .. } = self;
        Words {
            subject: say(["Your mana is running low", "Dein Mana geht zur Neige"]),
            before: vec![match self.language {
                Language::English => format!(
                    "You have {available} mana left to spend. You asked to be told when it is less than {below}."
                ),
                Language::German => format!(
                    "Du hast noch {available} Mana. Du wolltest Bescheid bekommen, wenn es weniger als {below} sind."
                ),
            }],
            link: None,
            code: None,
            after: vec![say([
                "You can change or switch off this notice in the app in which you set it.",
                "In der App, in der du diesen Hinweis eingestellt hast, kannst du ihn ändern oder abschalten.",
            ])],
        }
    }
}

/// Says that mana is not bought by itself any more, and how to go on.
pub(crate) struct TopUpPaused {
    pub(crate) language: Language,
    pub(crate) reason: PausedFor,
    pub(crate) link: String,
    /// Whether the link leads to where the owner can pay in person.
    pub(crate) is_till: bool,
}

impl Worded for TopUpPaused {
    const KIND: &'static str = "auto_top_up_paused";

    fn language(&self) -> Language {
        self.language
    }

    fn words(&self) -> Words<'_> {
        let say = |words: [&'static str; 2]| either(self.language, words);
        let why = match self.reason {
            PausedFor::Declined => {
                ["Your card was declined several times.", "Deine Karte wurde mehrmals abgelehnt."]
            }
            PausedFor::AuthenticationRequired => [
                "Your bank wants you to confirm the payment yourself.",
                "Deine Bank möchte, dass du die Zahlung selbst bestätigst.",
            ],
            PausedFor::PackageChanged => [
                "The package has changed since you agreed to it.",
                "Das Paket hat sich geändert, seit du ihm zugestimmt hast.",
            ],
            PausedFor::PackageGone => {
                ["The package is no longer for sale.", "Das Paket wird nicht mehr verkauft."]
            }
            PausedFor::PaymentMethodGone => {
                ["The saved card is no longer there.", "Die gespeicherte Karte ist nicht mehr da."]
            }
            PausedFor::ProviderRefuses => [
                "The payment was refused, and not because of your card.",
                "Die Zahlung wurde abgelehnt, und nicht wegen deiner Karte.",
            ],
            PausedFor::Debt => [
                "Your wallet owes mana, because a payment was taken back.",
                "Dein Guthaben ist im Minus, weil eine Zahlung zurückgeholt wurde.",
            ],
            PausedFor::Disputed => {
                ["A payment of yours is contested.", "Eine deiner Zahlungen wird bestritten."]
            }
            PausedFor::Refunded => ["A payment has gone back to you.", "Eine Zahlung ging an dich zurück."],
            PausedFor::Uncredited => [
                "A payment has arrived and could not be added to your wallet. Somebody sees to it.",
                "Eine Zahlung ist angekommen und konnte deinem Guthaben nicht hinzugefügt werden. Jemand kümmert sich darum.",
            ],
            PausedFor::WalletClosed | PausedFor::UserDisabled => {
                ["Nothing can be added to your wallet.", "Deinem Guthaben kann nichts hinzugefügt werden."]
            }
            PausedFor::Tax => [
                "Mana is sold with tax now, which is calculated when you pay in person.",
                "Mana wird jetzt mit Steuer verkauft, die berechnet wird, wenn du selbst bezahlst.",
            ],
        };
        let (label, after) = if self.is_till {
            (
                [
                    "Buy the package yourself, within 24 hours",
                    "Das Paket selbst kaufen, innerhalb von 24 Stunden",
                ],
                [
                    "After that you can buy in the app, where you can also turn the auto top-up on again.",
                    "Danach kannst du in der App kaufen. Dort schaltest du auch das automatische Aufladen wieder ein.",
                ],
            )
        } else {
            (
                ["Go to the app", "Zur App"],
                [
                    "There you can buy mana and turn the auto top-up on again.",
                    "Dort kannst du Mana kaufen und das automatische Aufladen wieder einschalten.",
                ],
            )
        };
        Words {
            subject: say(["Your mana is not topped up any more", "Dein Mana wird nicht mehr aufgeladen"]),
            before: vec![
                say(why).to_owned(),
                say([
                    "Until you turn it on again, nothing is bought by itself.",
                    "Bis du es wieder einschaltest, wird nichts von selbst gekauft.",
                ])
                .to_owned(),
            ],
            link: Some((say(label), &self.link)),
            code: None,
            after: vec![say(after)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(letter: &impl Letter, language: Language, secret: &str) {
        let (text, html) = (letter.text("Mana & Co").unwrap(), letter.html("Mana & Co").unwrap());
        let plain = html.replace("&#38;", "&").replace("&amp;", "&");
        assert!(text.contains(secret) && plain.contains(secret), "no {secret} in {text} or {html}");
        assert!(html.contains(&format!("lang=\"{}\"", language.tag())), "{html}");
        assert!(!text.contains('<') && !text.contains("\n\n\n") && !text.contains("{{"), "{text}");
        assert!(text.starts_with("Mana & Co\n\n") && !text.ends_with("\n\n"), "{text:?}");
        assert!(html.contains("Mana &#38; Co"), "{html}");
        assert!(!html.contains("<img") && !html.contains("<script") && !html.contains("src="), "{html}");
        assert!(!letter.subject().is_empty());
    }

    #[test]
    fn every_letter_says_what_it_has_to_in_both_forms_and_languages() {
        let link = "https://auth.example.com/x?token=mrp_x&app=y".to_owned();
        for language in [Language::English, Language::German] {
            let say = |words: [&'static str; 2]| either(language, words);
            check(&VerifyEmail { language, link: link.clone() }, language, &link);
            check(&ResetPassword { language, link: link.clone() }, language, &link);
            check(&MagicLink { language, link: link.clone() }, language, &link);
            check(&ChangeEmail { language, link: link.clone() }, language, &link);
            check(&EmailCode { language, code: "012345".to_owned() }, language, "012345");
            for is_done in [false, true] {
                let masked = "n***@example.com".to_owned();
                check(&EmailChanges { language, masked, is_done }, language, "n***@example.com");
            }
            let signed_out = say(["All other devices are signed out", "Alle anderen Geräte sind abgemeldet"]);
            check(&PasswordChanged { language }, language, signed_out);
            let is_deleted = say(["Your account is deleted,", "Dein Konto ist gelöscht,"]);
            check(&AccountDeleted { language }, language, is_deleted);
            for change in [
                ProtectionChange::PasskeyAdded,
                ProtectionChange::PasskeyRemoved,
                ProtectionChange::ServiceLinked("Example"),
                ProtectionChange::ServiceUnlinked("Example"),
                ProtectionChange::SecondFactorOn,
                ProtectionChange::SecondFactorOff,
                ProtectionChange::RecoveryCodesMade,
            ] {
                let by = "2026-11-23 15:56 UTC, Firefox, 192.0.2.1".to_owned();
                let told = |link| ProtectionChanged { language, change, by: by.clone(), link };
                check(&told(Some(link.clone())), language, &link);
                check(&told(None), language, &by);
            }
            let taken = vec![Taken::App, Taken::RecoveryCodes, Taken::Passkeys(3), Taken::Service("Example")];
            let letter = TakenAway { language, taken, by: "192.0.2.1".to_owned() };
            for expected in ["192.0.2.1", say(["app and its", "App und ihre"]), "3 "] {
                check(&letter, language, expected);
            }
            check(&LowBalance { language, available: 4, below: 12_345 }, language, "12345");
            for (reason, why) in [
                (PausedFor::Declined, ["was declined several times", "wurde mehrmals abgelehnt"]),
                (PausedFor::AuthenticationRequired, ["confirm the payment", "Zahlung selbst bestätigst"]),
                (PausedFor::PackageChanged, ["The package has changed", "Das Paket hat sich geändert"]),
                (PausedFor::PackageGone, ["no longer for sale", "nicht mehr verkauft"]),
                (PausedFor::PaymentMethodGone, ["The saved card is", "Die gespeicherte Karte ist"]),
                (PausedFor::ProviderRefuses, ["not because of your card", "nicht wegen deiner Karte"]),
                (PausedFor::Debt, ["Your wallet owes mana", "Dein Guthaben ist im Minus"]),
                (PausedFor::Disputed, ["is contested", "wird bestritten"]),
                (PausedFor::Refunded, ["has gone back to you", "ging an dich zurück"]),
                (PausedFor::Uncredited, ["could not be added to", "nicht hinzugefügt werden. Jemand"]),
                (PausedFor::WalletClosed, ["Nothing can be added", "kann nichts hinzugefügt werden"]),
                (PausedFor::UserDisabled, ["Nothing can be added", "kann nichts hinzugefügt werden"]),
                (PausedFor::Tax, ["Mana is sold with tax now", "Mana wird jetzt mit Steuer verkauft"]),
            ] {
                for is_till in [false, true] {
                    let letter = TopUpPaused { language, reason, link: link.clone(), is_till };
                    check(&letter, language, &link);
                    check(&letter, language, say(why));
                }
            }
        }
    }

    #[test]
    fn the_languages_differ() {
        let say = |language| PasswordChanged { language }.text("Mana").unwrap();
        assert!(say(Language::English).contains("password"));
        assert!(say(Language::German).contains("Passwort"));
    }
}
