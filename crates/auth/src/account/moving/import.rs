//! Accounts out of a file. Done in batches that each commit by themselves, so that nobody waits for an import, and one that was
//! cut off is gone on with by starting it again: what is there already is left as it is.

use super::row::{Lines, Row};
use crate::OnUserRegistered;
use crate::account::model::{Email, Role, User};
use crate::account::store::{self, ImportedUser};
use crate::bonus::SignupBonus;
use crate::password::{self, Scheme, StoredHash};
use crate::security_event::{self, EventKind};
use mana_kernel::{Clock, Line, Problem, Rng, UserId};
use mana_platform::{Database, DbError};
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
use std::io;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Rows that commit together.
const BATCH: usize = 200;
/// Kinds of hashes that imported accounts may have at once: a failed sign-in costs one of each, so that it tells nothing.
const MOST_SCHEMES: usize = 8;

/// Why an import stopped. What was committed until then stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file can't be read.
    #[error("the file can't be read: {0}. What was imported until then stays; start again to go on")]
    Input(#[from] io::Error),
    /// The database failed.
    #[error("{0}. What was imported until then stays; start again to go on")]
    Database(#[from] DbError),
    /// A wallet can't be opened.
    #[error("a wallet can't be opened: {0}. What was imported until then stays; start again to go on")]
    Port(Box<dyn Problem>),
}

/// Where accounts are imported to, and how.
#[derive(Debug)]
pub struct Target<'a> {
    /// The database.
    pub database: &'a Database,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Randomness.
    pub rng: &'a dyn Rng,
    /// Opens the wallets.
    pub on_user_registered: &'a dyn OnUserRegistered,
    /// Whether imported accounts get the sign-up bonus.
    pub bonus: SignupBonus,
    /// Whether accounts may be those of administrators and programs.
    pub keeps_roles: bool,
    /// Whether everything is tried and nothing is kept.
    pub is_dry: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Rows in the file.
    pub rows: u64,
    /// Accounts that were made.
    pub imported: u64,
    /// Accounts that were there.
    pub present: u64,
    /// Rows that were refused.
    pub refused: u64,
}

/// A row that was refused.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// Where it begins.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// What happens meanwhile.
#[derive(Debug)]
pub enum Step<'a> {
    /// A row was refused.
    Refused(&'a Refused),
    /// A batch is done; so many bytes were read.
    Done(u64, &'a Counts),
}

/// An account that is ready to be stored.
pub(crate) struct Candidate {
    line: u64,
    has_id: bool,
    user: User,
    disabled_at: Option<OffsetDateTime>,
    password: Option<(String, Scheme)>,
}

/// Imports the rows. `tell` hears of each that is refused, and how far it is.
///
/// # Errors
/// When the file or the database fails.
pub async fn import(
    target: &Target<'_>,
    lines: Lines<'_>,
    mut tell: impl FnMut(Step<'_>),
) -> Result<Counts, ImportError> {
    let mut counts = Counts::default();
    let mut known = Known::of(target.database).await?;
    let keep = Keep { clock: target.clock, rng: target.rng, roles: target.keeps_roles };
    let mut batch = Vec::new();
    let mut lines = lines.peekable();
    while let Some(read) = lines.next().transpose()? {
        counts.rows = counts.rows.saturating_add(1);
        match read.row.and_then(|row| check(&keep, &mut known, read.line, row)) {
            Ok(candidate) => batch.push(candidate),
            Err(reason) => refuse(&mut counts, &mut tell, read.line, reason),
        }
        if batch.len() >= BATCH || lines.peek().is_none() {
            for (line, reason) in store_batch(target, &batch, &mut counts).await? {
                refuse(&mut counts, &mut tell, line, reason);
            }
            batch.clear();
            tell(Step::Done(read.bytes, &counts));
        }
    }
    Ok(counts)
}

fn refuse(counts: &mut Counts, tell: &mut impl FnMut(Step<'_>), line: u64, reason: String) {
    counts.refused = counts.refused.saturating_add(1);
    tell(Step::Refused(&Refused { line, reason }));
}

/// How rows become accounts.
#[derive(Debug)]
pub(crate) struct Keep<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) rng: &'a dyn Rng,
    /// Whether they may be administrators and programs.
    pub(crate) roles: bool,
}

/// What a row must fit besides its own members.
#[derive(Debug, Default)]
pub(crate) struct Known {
    schemes: HashSet<Scheme>,
    /// Lines by id and by address.
    ids: HashMap<UserId, u64>,
    addresses: HashMap<String, u64>,
}

impl Known {
    /// Before the first row.
    pub(crate) async fn of(database: &Database) -> Result<Self, DbError> {
        let mut transaction = database.begin().await?;
        let schemes = password::store::list_imported_schemes(&mut transaction).await?.into_iter().collect();
        Ok(Self { schemes, ..Self::default() })
    }

    /// The next row has nothing to do with those before it.
    pub(crate) fn forget_rows(&mut self) {
        self.ids.clear();
        self.addresses.clear();
    }
}

/// What a row comes to, or why it can't be an account.
pub(crate) fn check(keep: &Keep<'_>, known: &mut Known, line: u64, row: Row) -> Result<Candidate, String> {
    let email = Email::try_from(row.email).map_err(|error| format!("email {error}"))?;
    let id = match row.id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => Some(id.parse::<UserId>().map_err(|error| format!("id {error}"))?),
        None => None,
    };
    let name = row.name.map(Line::<0, 255>::try_from).transpose().map_err(|error| format!("name {error}"))?;
    let role = match row.role.as_deref().unwrap_or("user") {
        "user" => Role::User,
        "admin" | "service" if !keep.roles => {
            return Err("role is not user, which takes --keep-roles".to_owned());
        }
        "admin" => Role::Admin,
        "service" => Role::Service,
        _ => return Err("role must be user, admin or service".to_owned()),
    };
    let image = row.image.filter(|image| !image.is_empty());
    if image.as_deref().is_some_and(|image| !is_picture(image)) {
        return Err("image must be an http or https URL of at most 2048 bytes".to_owned());
    }
    let now = keep.clock.now();
    let created_at = read_time("createdAt", row.created_at)?.unwrap_or(now);
    if created_at > now {
        return Err("createdAt must not be in the future".to_owned());
    }
    let disabled_at = read_time("disabledAt", row.disabled_at)?;
    let password = match row.password_hash.filter(|hash| !hash.is_empty()) {
        Some(text) => {
            let scheme = StoredHash::read(&text).map_err(|error| format!("passwordHash {error}"))?.scheme();
            Some((text, scheme))
        }
        None => None,
    };
    let has_id = id.is_some();
    let id = id.unwrap_or_else(|| UserId::new(keep.clock, keep.rng));
    for (other, what) in [(known.ids.get(&id), "id"), (known.addresses.get(email.as_str()), "email")] {
        if let Some(other) = other {
            return Err(format!("{what} is that of line {other} too"));
        }
    }
    if let Some((_, scheme)) = &password
        && *scheme != Scheme::OURS
        && !known.schemes.contains(scheme)
    {
        if known.schemes.len() >= MOST_SCHEMES {
            return Err(format!(
                "passwordHash is of a {}th kind ({scheme}): leave it out, and let the person reset the password",
                MOST_SCHEMES.saturating_add(1)
            ));
        }
        known.schemes.insert(*scheme);
    }
    known.ids.insert(id.clone(), line);
    known.addresses.insert(email.as_str().to_owned(), line);
    let user = User {
        id,
        email: email.as_str().to_owned(),
        name: name.map(String::from).filter(|name| !name.is_empty()),
        role,
        email_verified: row.email_verified.unwrap_or(false),
        image,
        created_at,
        ways_in_epoch: 0,
    };
    Ok(Candidate { line, has_id, user, disabled_at, password })
}

pub(crate) fn is_picture(text: &str) -> bool {
    text.len() <= 2048
        && url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn read_time(name: &str, text: Option<String>) -> Result<Option<OffsetDateTime>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let time = OffsetDateTime::parse(&text, &Rfc3339);
    time.map(Some).map_err(|_| format!("{name} must be a time as 2026-01-31T12:00:00Z"))
}

/// Stores a batch, and says which of its rows don't fit what is there, and why.
async fn store_batch(
    target: &Target<'_>,
    batch: &[Candidate],
    counts: &mut Counts,
) -> Result<Vec<(u64, String)>, ImportError> {
    let mut transaction = target.database.begin().await?;
    let (new, old) = store_accounts(&mut transaction, target.clock, target.rng, batch).await?;
    for row in &new {
        let id = &row.user.id;
        let wallet = target.on_user_registered.on_user_registered(&mut transaction, id, target.bonus);
        wallet.await.map_err(ImportError::Port)?;
    }
    let refused = compare(&mut transaction, &old).await?;
    if !target.is_dry {
        transaction.commit().await?;
    }
    let number = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    counts.imported = counts.imported.saturating_add(number(new.len()));
    counts.present = counts.present.saturating_add(number(old.len().saturating_sub(refused.len())));
    Ok(refused)
}

/// Stores those of the accounts whose id and address are free, and says which they were, and which were not.
async fn store_accounts<'a>(
    connection: &mut PgConnection,
    clock: &dyn Clock,
    rng: &dyn Rng,
    batch: &'a [Candidate],
) -> Result<(Vec<&'a Candidate>, Vec<&'a Candidate>), DbError> {
    let now = clock.now();
    let users: Vec<_> =
        batch.iter().map(|row| ImportedUser { user: &row.user, disabled_at: row.disabled_at }).collect();
    let inserted = store::insert_imported(connection, &users, now).await?;
    let (new, old): (Vec<_>, Vec<_>) = batch.iter().partition(|row| inserted.contains(row.user.id.as_str()));
    let (mut ids, mut hashes, mut schemes) = (Vec::new(), Vec::new(), Vec::new());
    for (id, (hash, scheme)) in new.iter().filter_map(|row| Some((&row.user.id, row.password.as_ref()?))) {
        ids.push(id.as_str().to_owned());
        hashes.push(hash.clone());
        schemes.push(Some(scheme).filter(|scheme| **scheme != Scheme::OURS).map(ToString::to_string));
    }
    password::store::insert_imported(connection, &ids, &hashes, &schemes, now).await?;
    for row in &new {
        let (kind, id) = (EventKind::Imported, &row.user.id);
        security_event::record_by_command(connection, clock, rng, kind, id).await?;
    }
    Ok((new, old))
}

/// What became of a single account.
#[derive(Debug)]
pub(crate) enum Stored {
    /// It was not there.
    New,
    /// It was there, with the same id and address.
    Present,
    /// It does not fit what is there.
    Refused(String),
}

impl Candidate {
    /// Stores it by itself. Its wallet is the caller's business.
    pub(crate) async fn store(
        &self,
        connection: &mut PgConnection,
        clock: &dyn Clock,
        rng: &dyn Rng,
    ) -> Result<Stored, DbError> {
        let (new, old) = store_accounts(connection, clock, rng, std::slice::from_ref(self)).await?;
        if !new.is_empty() {
            return Ok(Stored::New);
        }
        let refused = compare(connection, &old).await?.into_iter().next();
        Ok(refused.map_or(Stored::Present, |(_, reason)| Stored::Refused(reason)))
    }

    /// Who it is.
    pub(crate) fn user(&self) -> &User {
        &self.user
    }

    /// Whether a password opens it.
    pub(crate) fn has_password(&self) -> bool {
        self.password.is_some()
    }
}

/// Those of the rows that stand for another account than the one that is there.
async fn compare(connection: &mut PgConnection, rows: &[&Candidate]) -> Result<Vec<(u64, String)>, DbError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = rows.iter().map(|row| row.user.id.as_str().to_owned()).collect();
    let addresses: Vec<_> = rows.iter().map(|row| row.user.email.clone()).collect();
    let present = store::list_by_ids_or_addresses(connection, &ids, &addresses).await?;
    let refusal = |row: &&Candidate| {
        let of_address = present.iter().find(|(_, email)| *email == row.user.email).map(|(id, _)| id);
        let of_id = present.iter().find(|(id, _)| id == row.user.id.as_str());
        let reason = match (of_address, of_id) {
            (Some(id), _) if !row.has_id || id == row.user.id.as_str() => return None,
            (Some(id), _) => format!("email is that of another account, {id}"),
            (None, Some(_)) => "id is that of an account with another address".to_owned(),
            // Deleted meanwhile.
            (None, None) => "the account was there a moment ago and is no more; import it again".to_owned(),
        };
        Some((row.line, reason))
    };
    Ok(rows.iter().filter_map(refusal).collect())
}
