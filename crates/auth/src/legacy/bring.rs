//! Brings an account, in the caller's open transaction: with all that opens it, or not at all.

use super::model::{OldAccount, OldEvent, OldFactor, OldUser, With};
use super::sealed;
use crate::account::moving::Row;
use crate::account::moving::import::{Keep, Known, Stored, check, is_picture};
use crate::bonus::{self, BonusError};
use crate::oauth::store::{self as links, NewAccount};
use crate::password::StoredHash;
use crate::security_event::store::{OlderEvent, insert_older};
use crate::token::root_secret::{Purpose, RootSecretError, RootSecrets};
use crate::two_factor::recovery_code::RecoveryCode;
use crate::two_factor::store as factors;
use crate::two_factor::totp::TotpSecret;
use mana_kernel::{Clock, Line, Rng, UserId};
use mana_platform::{Database, DbError};
use secrecy::SecretString;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashSet;
use std::net::IpAddr;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// Characters of a user agent that are kept.
const LONGEST_AGENT: usize = 512;
/// And of what an event was called.
const LONGEST_EVENT: usize = 64;

/// Why an account was not brought.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// It does not fit, or what is here does not fit it.
    #[error("{0}")]
    Refused(String),
    /// Something can't be sealed.
    #[error(transparent)]
    Seal(#[from] RootSecretError),
    /// The database failed.
    #[error(transparent)]
    Database(DbError),
}

impl From<DbError> for BringError {
    fn from(error: DbError) -> Self {
        match error.refusal() {
            Some(reason) => Self::Refused(format!("the database refuses it: {reason}")),
            None => Self::Database(error),
        }
    }
}

impl From<BonusError> for BringError {
    fn from(error: BonusError) -> Self {
        match error {
            BonusError::Key(error) => Self::Seal(error),
            BonusError::Database(error) => error.into(),
        }
    }
}

/// How accounts are brought.
#[derive(Debug)]
pub struct Bring<'a> {
    clock: &'a dyn Clock,
    rng: &'a dyn Rng,
    root_secrets: &'a RootSecrets,
    /// The older service's secret, if it is known.
    auth_secret: Option<&'a SecretString>,
    /// Issuers, by what the older service called them.
    issuers: Vec<(String, String)>,
    keeps_roles: bool,
    known: Known,
}

/// What became of an account.
#[derive(Debug)]
pub enum Outcome {
    /// It is here now.
    Brought(Brought),
    /// It was here already, under the same id and address; it is left as it is.
    Present(UserId),
}

/// An account that was brought.
#[derive(Debug)]
pub struct Brought {
    /// Whose.
    pub user: UserId,
    /// Whether it has a password that can be verified.
    pub has_password: bool,
    /// Accounts elsewhere that open it.
    pub links: u64,
    /// Whether it has a second factor that its owner can use.
    pub has_factor: bool,
    /// Whether it has one that nobody can use, so that an administrator must take it away.
    pub is_locked: bool,
    /// Codes on paper.
    pub recovery_codes: u64,
    /// What is not as it was.
    pub notes: Vec<String>,
}

impl<'a> Bring<'a> {
    /// Ready to bring.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn new(
        database: &Database,
        (clock, rng): (&'a dyn Clock, &'a dyn Rng),
        root_secrets: &'a RootSecrets,
        auth_secret: Option<&'a SecretString>,
        issuers: Vec<(String, String)>,
        keeps_roles: bool,
    ) -> Result<Self, DbError> {
        let known = Known::of(database).await?;
        Ok(Self { clock, rng, root_secrets, auth_secret, issuers, keeps_roles, known })
    }

    /// Brings an account with all that opens it.
    ///
    /// # Errors
    /// When it does not fit, or the database fails.
    pub async fn user(
        &mut self,
        connection: &mut PgConnection,
        user: &OldUser,
        with: &With,
    ) -> Result<Outcome, BringError> {
        let mut notes = Vec::new();
        let row = self.row(user, with, &mut notes);
        let keep = Keep { clock: self.clock, rng: self.rng, roles: self.keeps_roles };
        self.known.forget_rows();
        let candidate = check(&keep, &mut self.known, 0, row).map_err(BringError::Refused)?;
        let id = candidate.user().id.clone();
        match candidate.store(connection, self.clock, self.rng).await? {
            Stored::Present => return Ok(Outcome::Present(id)),
            Stored::Refused(reason) => return Err(BringError::Refused(reason)),
            Stored::New => {
                let address = &candidate.user().email;
                bonus::note_given(connection, self.root_secrets, address, self.clock.now()).await?;
            }
        }
        let mut brought = Brought {
            user: id,
            has_password: candidate.has_password(),
            links: 0,
            has_factor: false,
            is_locked: false,
            recovery_codes: 0,
            notes,
        };
        for account in with.accounts.iter().filter(|account| account.provider_id != "credential") {
            self.link(connection, account, &mut brought).await?;
        }
        self.factor(connection, user, with.factor.as_ref(), &mut brought).await?;
        Ok(Outcome::Brought(brought))
    }

    /// What the account is, in the words of a file of accounts. What does not fit and is no more than decoration is left out.
    fn row(&self, user: &OldUser, with: &With, notes: &mut Vec<String>) -> Row {
        let now = self.clock.now();
        let time = |time: OffsetDateTime| time.min(now).format(&Rfc3339).unwrap_or_default();
        let name = user.name.clone().filter(|name| {
            let fits = Line::<0, 255>::try_from(name.clone()).is_ok();
            if !fits {
                notes.push("its name is no line of at most 255 characters, and is left out".to_owned());
            }
            fits
        });
        let image = user.image.clone().filter(|image| {
            let fits = image.is_empty() || is_picture(image);
            if !fits {
                notes.push(
                    "its picture is no http or https URL of at most 2048 bytes, and is left out".to_owned(),
                );
            }
            fits
        });
        let hash = with.hash().filter(|hash| match StoredHash::read(hash) {
            Ok(_) => true,
            Err(error) => {
                notes.push(format!("its password's hash {error}: the person must reset the password"));
                false
            }
        });
        Row {
            id: Some(user.id.clone()),
            email: user.email.clone().unwrap_or_default(),
            email_verified: user.email_verified,
            name,
            role: user.role.clone(),
            image,
            created_at: user.created_at.map(time),
            disabled_at: user.deleted_at.map(time),
            password_hash: hash,
        }
    }

    async fn link(
        &self,
        connection: &mut PgConnection,
        account: &OldAccount,
        brought: &mut Brought,
    ) -> Result<(), BringError> {
        let (provider, subject) = (account.provider_id.as_str(), account.account_id.as_str());
        let issuer = self.issuers.iter().find(|(known, _)| known == provider).map(|(_, issuer)| issuer);
        let is_subject = Line::<1, 255>::try_from(subject.to_owned()).is_ok();
        let (Some(issuer), true) = (issuer, is_subject) else {
            let provider: String = provider.chars().filter(|letter| !letter.is_control()).take(64).collect();
            brought.notes.push(format!(
                "its account of {provider} can't be told from others here: the person links it again after a sign-in"
            ));
            return Ok(());
        };
        let now = self.clock.now();
        let added = NewAccount {
            id: mana_kernel::id::new_uuid(self.clock, self.rng),
            user: &brought.user,
            provider,
            issuer,
            subject,
            email: None,
            linked_in: None,
            now: account.created_at.unwrap_or(now).min(now),
        };
        links::insert_account(connection, &added).await?;
        brought.links = brought.links.saturating_add(1);
        Ok(())
    }

    /// A factor that can't be opened is kept as one that nobody has: the account asks for it, and an administrator takes it away
    /// for the one who shows who they are.
    async fn factor(
        &self,
        connection: &mut PgConnection,
        user: &OldUser,
        factor: Option<&OldFactor>,
        brought: &mut Brought,
    ) -> Result<(), BringError> {
        let says_user = user.two_factor_enabled.unwrap_or(false);
        if !factor.map_or(says_user, |factor| factor.enabled.unwrap_or(false) || says_user) {
            return Ok(());
        }
        let opened = |text: &str| sealed::open(text, self.auth_secret?);
        let known = factor.and_then(|factor| TotpSecret::from_bytes(opened(&factor.secret)?.as_bytes()));
        brought.has_factor = known.is_some();
        brought.is_locked = known.is_none();
        let secret = known.unwrap_or_else(|| TotpSecret::generate(self.rng));
        let (purpose, name) = (Purpose::TotpSecrets, brought.user.as_str());
        let closed = self.root_secrets.seal(secret.as_bytes(), purpose, name, self.rng)?;
        let (version, now) = (self.root_secrets.current_id(), self.clock.now());
        factors::insert_confirmed(connection, &brought.user, &closed, version, now).await?;
        let codes = match factor.and_then(|factor| factor.backup_codes.as_ref()) {
            Some(Value::String(text)) => opened(text).and_then(|text| serde_json::from_str(&text).ok()),
            _ => None,
        };
        let codes: Vec<String> = codes.unwrap_or_default();
        let hashes: HashSet<_> = codes
            .iter()
            .filter_map(|code| Some(RecoveryCode::parse_older(code)?.hash(&brought.user).to_vec()))
            .collect();
        if !hashes.is_empty() {
            let hashes: Vec<_> = hashes.into_iter().take(100).collect();
            factors::replace_recovery_codes(connection, &brought.user, None, &hashes, now).await?;
            brought.recovery_codes = u64::try_from(hashes.len()).unwrap_or(0);
        }
        if brought.is_locked {
            brought.notes.push(
                "its second factor can't be opened: nobody signs in before an administrator takes it away (`users reset-factors`)"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Adds what the older service wrote of accounts that are here.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events(&self, connection: &mut PgConnection, events: &[OldEvent]) -> Result<u64, DbError> {
        let now = self.clock.now();
        let rows: Vec<_> = events
            .iter()
            .filter_map(|event| {
                let created_at = event.created_at?.min(now);
                let clean = |text: &str, longest: usize| {
                    text.chars().filter(|letter| !letter.is_control()).take(longest).collect::<String>()
                };
                let address = event.ip_address.as_deref().and_then(|text| text.trim().parse::<IpAddr>().ok());
                Some(OlderEvent {
                    id: self.id_at(created_at),
                    user_id: event.user_id.clone()?,
                    what: clean(&event.event_type, LONGEST_EVENT),
                    ip_address: address.map(|address| address.to_string()),
                    user_agent: event.user_agent.as_deref().map(|text| clean(text, LONGEST_AGENT)),
                    created_at,
                })
            })
            .collect();
        insert_older(connection, &rows).await?;
        Ok(u64::try_from(rows.len()).unwrap_or(0))
    }

    /// An id that is as old as the event: what is past its time is found by it.
    fn id_at(&self, at: OffsetDateTime) -> Uuid {
        mana_kernel::id::new_uuid(&At(at), self.rng)
    }
}

/// A clock that stands.
#[derive(Debug)]
struct At(OffsetDateTime);

impl Clock for At {
    fn now(&self) -> OffsetDateTime {
        self.0
    }
}
