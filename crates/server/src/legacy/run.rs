//! Reads page by page and brings user by user.

use super::report::{Check, Mana, Refused, Report};
use super::source::{Legacy, Totals, read};
use super::tables::MOST_DIGITS;
use crate::source::NoAddress;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use mana_auth::legacy::{
    self as accounts, Bring, OldAccount, OldEvent, OldFactor, OldPassword, OldUser, Outcome, With,
};
use mana_auth::token::root_secret::{RootSecretError, RootSecrets};
use mana_credits::ledger::legacy::{
    self as books, BringError, Bringing, OldBalance, OldLine, OldOrder, OldPackage, Policy, Sales, SoldAs,
};
use mana_credits::ledger::verify::{self, Scope};
use mana_credits::package::model::PackageError;
use mana_kernel::{Clock as _, UserId};
use mana_platform::db::Transaction;
use mana_platform::refusal::{Unreached, said};
use mana_platform::{Database, DbError, Settings, SystemClock, SystemRng};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use std::collections::{HashMap, HashSet};

/// Events that are written together.
const EVENTS: usize = 500;

/// Why an import stopped. What was committed until then stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LegacyError {
    #[error(
        "LEGACY_DATABASE_URL (--from) is not a PostgreSQL address (postgres://user:password@host:5432/database): {0}"
    )]
    Url(NoAddress),
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error(
        "the older database can't be read: {}. What was brought until then stays; start again to go on. It is read as the owner of its \
         tables, or as a superuser, so that no row is hidden", said(.0)
    )]
    Source(sqlx::Error),
    #[error(
        "LEGACY_DATABASE_URL (--from) is a database of this program: name that of the older service. Books of this program move with `ledger export`"
    )]
    IsOurs,
    #[error(
        "the older database lacks {0}. Name that of the older service, with a login that sees its tables"
    )]
    Missing(String),
    #[error("{0}. What was brought until then stays; start again to go on")]
    Database(#[from] DbError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Seal(#[from] RootSecretError),
}

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    pub(crate) from: &'a SecretString,
    pub(crate) auth_secret: Option<&'a SecretString>,
    pub(crate) applies: bool,
    pub(crate) keeps_roles: bool,
    pub(crate) livemode: bool,
}

/// What happens meanwhile.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// Something was refused.
    Refused(&'a Refused),
    /// Something is not as it was.
    Noted(&'a Refused),
    /// So many users of so many are done, with so many lines.
    Done { users: u64, of: u64, lines: u64 },
    /// So many wallets of so many are proven.
    Proven { wallets: u64, of: u64 },
}

/// Brings everything, or tries to.
pub(crate) async fn run(
    (database, root_secrets): (&Database, &RootSecrets),
    settings: &Settings,
    options: &Options<'_>,
    tell: &mut (dyn FnMut(Step<'_>) + Send),
) -> Result<Report, LegacyError> {
    let zone = settings.credits_daily_zone.as_str();
    let mut legacy = Legacy::open(options.from, zone).await?;
    let mut report = Report { is_dry_run: !options.applies, ..Report::default() };
    count(&mut legacy, &mut report).await?;
    let totals = legacy.sum_balances().await?;
    let issuers = [
        ("google", &settings.providers.google_issuer),
        ("apple", &settings.providers.apple_issuer),
        ("github", &settings.providers.github_url),
        ("discord", &settings.providers.discord_url),
    ];
    let bring = Bring::new(
        database,
        (&SystemClock, &SystemRng),
        root_secrets,
        options.auth_secret,
        issuers.iter().map(|(name, issuer)| ((*name).to_owned(), (*issuer).clone())).collect(),
        options.keeps_roles,
    );
    let tells_apart = legacy.balances.has("freeCreditsRemaining");
    let mut import = Import {
        database,
        bring: bring.await?,
        policy: Policy { now: SystemClock.now(), livemode: options.livemode },
        zone,
        applies: options.applies,
        tells_apart,
        doubles: legacy.list_doubles().await?,
        packages: Vec::new(),
        sold: legacy.list_sold().await?,
        sales: Sales::default(),
        refused_mana: Mana::default(),
        moved_on: 0,
        report,
        tell,
    };
    import.understand_packages(&legacy.list_packages().await?);
    import.packages().await?;
    let (mut after, mut seen) = (None::<String>, 0_u64);
    let of = u64::try_from(import.report.source.users).unwrap_or(0);
    loop {
        let page = legacy.list_users(after.as_deref()).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        seen = seen.saturating_add(u64::try_from(page.len()).unwrap_or(0));
        import.page(&mut legacy, page).await?;
        let lines = import.report.credits.transactions;
        (import.tell)(Step::Done { users: seen, of, lines });
    }
    import.compare(totals, seen);
    if options.applies {
        import.prove().await?;
    }
    Ok(import.report)
}

async fn count(legacy: &mut Legacy, report: &mut Report) -> Result<(), LegacyError> {
    let source = &mut report.source;
    source.users = legacy.count(|legacy| Some(&legacy.users)).await?;
    source.accounts = legacy.count(|legacy| legacy.accounts.as_ref()).await?;
    source.passwords = legacy.count(|legacy| legacy.passwords.as_ref()).await?;
    source.second_factors = legacy.count(|legacy| legacy.factors.as_ref()).await?;
    source.passkeys = legacy.count(|legacy| legacy.passkeys.as_ref()).await?;
    source.live_sessions = legacy.count_sessions().await?;
    source.security_events = legacy.count(|legacy| legacy.events.as_ref()).await?;
    source.balances = legacy.count(|legacy| Some(&legacy.balances)).await?;
    source.transactions = legacy.count(|legacy| Some(&legacy.transactions)).await?;
    source.packages = legacy.count(|legacy| legacy.packages.as_ref()).await?;
    source.purchases = legacy.count(|legacy| legacy.purchases.as_ref()).await?;
    source.usage_stats = legacy.count(|legacy| legacy.usage.as_ref()).await?;
    source.used = legacy.sum_usage().await?;
    Ok(())
}

struct Import<'a> {
    database: &'a Database,
    bring: Bring<'a>,
    policy: Policy,
    zone: &'a str,
    applies: bool,
    /// Whether the older service told free and paid mana apart.
    tells_apart: bool,
    /// Users whose address an earlier user has too.
    doubles: HashSet<String>,
    packages: Vec<OldPackage>,
    sold: Vec<SoldAs>,
    sales: Sales,
    refused_mana: Mana,
    /// Users who were brought before, and whose older wallets have moved since.
    moved_on: u64,
    report: Report,
    tell: &'a mut (dyn FnMut(Step<'_>) + Send),
}

/// What a page has of its users.
#[derive(Debug, Default)]
struct Belongings {
    with: HashMap<String, With>,
    balances: HashMap<String, OldBalance>,
    /// What wallets had, also of those whose rows can't be understood otherwise.
    mana: HashMap<String, Mana>,
    orders: HashMap<String, Vec<OldOrder>>,
    /// Rows that can't be understood, and why: of which user.
    broken: HashMap<String, String>,
}

/// Why a user was not brought.
enum Failure {
    Refused(String),
    Stopped(LegacyError),
}

impl From<LegacyError> for Failure {
    fn from(error: LegacyError) -> Self {
        Self::Stopped(error)
    }
}

impl From<accounts::BringError> for Failure {
    fn from(error: accounts::BringError) -> Self {
        match error {
            accounts::BringError::Refused(reason) => Self::Refused(reason),
            accounts::BringError::Seal(error) => Self::Stopped(error.into()),
            accounts::BringError::Database(error) => Self::Stopped(error.into()),
        }
    }
}

impl From<BringError> for Failure {
    fn from(error: BringError) -> Self {
        match error {
            BringError::Refused(reason) => Self::Refused(reason),
            BringError::Database(error) => Self::Stopped(error.into()),
        }
    }
}

/// Lines of one user after the other.
struct Lines<'a> {
    stream: BoxStream<'a, Result<(String, String), LegacyError>>,
    ahead: Option<(String, String)>,
    /// Of the user who is being brought.
    taken: u64,
}

impl<'a> Lines<'a> {
    async fn of(
        mut stream: BoxStream<'a, Result<(String, String), LegacyError>>,
    ) -> Result<Self, LegacyError> {
        let ahead = stream.try_next().await?;
        Ok(Self { stream, ahead, taken: 0 })
    }

    /// The next line, if it is the user's.
    async fn next_of(&mut self, user: &str) -> Result<Option<String>, LegacyError> {
        let Some((_, line)) = self.ahead.take_if(|(of, _)| of == user) else { return Ok(None) };
        self.ahead = self.stream.try_next().await?;
        self.taken = self.taken.saturating_add(1);
        Ok(Some(line))
    }
}

impl Belongings {
    async fn load(legacy: &mut Legacy, users: &[String]) -> Result<Self, LegacyError> {
        let mut all = Self::default();
        for (user, row) in legacy.list_of(|legacy| legacy.accounts.as_ref(), users).await? {
            if let Some(account) = all.understand::<OldAccount>("accounts", &user, &row) {
                all.with.entry(user).or_default().accounts.push(account);
            }
        }
        for (user, row) in legacy.list_of(|legacy| legacy.passwords.as_ref(), users).await? {
            if let Some(password) = all.understand::<OldPassword>("passwords", &user, &row) {
                all.with.entry(user).or_default().password = Some(password);
            }
        }
        for (user, row) in legacy.list_of(|legacy| legacy.factors.as_ref(), users).await? {
            if let Some(factor) = all.understand::<OldFactor>("two_factor_auth", &user, &row) {
                all.with.entry(user).or_default().factor = Some(factor);
            }
        }
        for (user, row) in legacy.list_of(|legacy| legacy.purchases.as_ref(), users).await? {
            if let Some(order) = all.understand::<OldOrder>("purchases", &user, &row) {
                all.orders.entry(user).or_default().push(order);
            }
        }
        for (user, row) in legacy.list_balances(users).await? {
            all.mana.insert(user.clone(), mana_in(&row));
            if let Some(balance) = all.understand::<OldBalance>("balances", &user, &row) {
                all.balances.insert(user, balance);
            }
        }
        Ok(all)
    }

    fn understand<T: DeserializeOwned>(&mut self, table: &'static str, user: &str, row: &str) -> Option<T> {
        match read(table, row) {
            Ok(row) => Some(row),
            Err(error) => {
                self.broken.insert(user.to_owned(), error.to_string());
                None
            }
        }
    }

    /// What a wallet had.
    fn mana(&self, user: &str) -> Mana {
        self.mana.get(user).copied().unwrap_or_default()
    }
}

/// What a wallet had, by its row. What is no mana counts for nothing, as in the sum of all.
fn mana_in(row: &str) -> Mana {
    let row: Value = serde_json::from_str(row).unwrap_or_default();
    let most = 10_u64.saturating_pow(MOST_DIGITS);
    let of = |name: &str| row.get(name)?.as_i64().filter(|mana| mana.unsigned_abs() < most);
    Mana { free: of("freeCreditsRemaining").unwrap_or(0), paid: of("balance").unwrap_or(0) }
}

impl Import<'_> {
    /// Refuses the packages whose rows can't be understood. Their orders are of a package that nobody can buy.
    fn understand_packages(&mut self, rows: &[String]) {
        for row in rows {
            match read("packages", row) {
                Ok(package) => self.packages.push(package),
                Err(misread) => self.refuse("packages", &misread.id, misread.to_string()),
            }
        }
    }

    /// Makes what was for sale, in a transaction of its own.
    async fn packages(&mut self) -> Result<(), LegacyError> {
        let mut transaction = self.database.begin().await?;
        self.sell(&mut transaction).await?;
        self.report.credits.packages = self.sales.packages;
        for sentence in std::mem::take(&mut self.sales.refused) {
            let (id, reason) = sentence.split_once(": ").unwrap_or((&sentence, ""));
            self.refuse("packages", id.trim_start_matches("package "), reason.to_owned());
        }
        self.keep(transaction).await
    }

    async fn sell(&mut self, connection: &mut PgConnection) -> Result<(), LegacyError> {
        self.sales = books::bring_packages(connection, &self.packages, &self.sold, self.policy.now).await?;
        Ok(())
    }

    async fn keep(&self, transaction: Transaction) -> Result<(), LegacyError> {
        let end = if self.applies { transaction.commit().await } else { transaction.rollback().await };
        Ok(end?)
    }

    fn refuse(&mut self, table: &'static str, id: &str, reason: String) {
        self.report.refused = self.report.refused.saturating_add(1);
        (self.tell)(Step::Refused(&Refused { table, id: id.to_owned(), reason }));
    }

    fn note(&mut self, table: &'static str, id: &str, notes: Vec<String>) {
        for reason in notes {
            self.report.noted = self.report.noted.saturating_add(1);
            (self.tell)(Step::Noted(&Refused { table, id: id.to_owned(), reason }));
        }
    }

    /// Brings the users of a page that are not here yet.
    async fn page(&mut self, legacy: &mut Legacy, page: Vec<(String, String)>) -> Result<(), LegacyError> {
        let ids: Vec<String> = page.iter().map(|(id, _)| id.clone()).collect();
        let mut all = Belongings::load(legacy, &ids).await?;
        let present = books::list_brought(&mut *self.database.acquire().await?, &ids).await?;
        let present: HashMap<String, Mana> =
            present.into_iter().map(|(user, free, paid)| (user, Mana { free, paid })).collect();
        self.pass_over(legacy, &present, &all).await?;
        let page: Vec<_> = page.into_iter().filter(|(id, _)| !present.contains_key(id)).collect();
        if page.is_empty() {
            return Ok(());
        }
        let mut transaction = self.database.begin().await?;
        if !self.applies {
            // Nothing was kept of the packages, which orders name.
            self.sell(&mut transaction).await?;
        }
        let ids: Vec<String> = page.iter().map(|(id, _)| id.clone()).collect();
        let mut brought = Vec::new();
        let mut lines = Lines::of(legacy.stream_lines(&ids)).await?;
        for (id, row) in &page {
            lines.taken = 0;
            let mana = all.mana(id);
            let mut savepoint = transaction.begin().await.map_err(DbError::from)?;
            match self.user(&mut savepoint, (id, row), &mut all, &mut lines).await {
                Ok(()) => {
                    savepoint.commit().await.map_err(DbError::from)?;
                    brought.push(id.clone());
                }
                Err(Failure::Refused(reason)) => {
                    savepoint.rollback().await.map_err(DbError::from)?;
                    while lines.next_of(id).await?.is_some() {}
                    let credits = &mut self.report.credits;
                    credits.passed_over = credits.passed_over.saturating_add(lines.taken);
                    self.report.users.refused = self.report.users.refused.saturating_add(1);
                    self.refused_mana.add(mana);
                    self.refuse("users", id, reason);
                }
                Err(Failure::Stopped(error)) => return Err(error),
            }
        }
        drop(lines);
        self.events(legacy, &mut transaction, &brought).await?;
        self.keep(transaction).await
    }

    /// Counts users who are here already, and looks whether their older wallets have moved since.
    async fn pass_over(
        &mut self,
        legacy: &mut Legacy,
        present: &HashMap<String, Mana>,
        all: &Belongings,
    ) -> Result<(), LegacyError> {
        let ids: Vec<String> = present.keys().cloned().collect();
        let lines = u64::try_from(legacy.count_lines(&ids).await?).unwrap_or(0);
        let credits = &mut self.report.credits;
        credits.passed_over = credits.passed_over.saturating_add(lines);
        for (id, here) in present {
            self.report.users.present = self.report.users.present.saturating_add(1);
            self.report.new_mana.add(*here);
            let there = all.mana(id);
            let is_same = if self.tells_apart { there == *here } else { there.all() == here.all() };
            if !is_same {
                self.moved_on = self.moved_on.saturating_add(1);
                let reason = format!(
                    "the older wallet has {} now, and had {} when it was brought: it has moved since, and stays as it is here",
                    there.all(),
                    here.all()
                );
                self.note("balances", id, vec![reason]);
            }
        }
        Ok(())
    }

    /// Brings a user with all that is theirs.
    async fn user(
        &mut self,
        connection: &mut PgConnection,
        (id, row): (&str, &str),
        all: &mut Belongings,
        lines: &mut Lines<'_>,
    ) -> Result<(), Failure> {
        let user: OldUser = read("users", row).map_err(|error| Failure::Refused(error.to_string()))?;
        if let Some(reason) = all.broken.remove(id) {
            return Err(Failure::Refused(reason));
        }
        if self.doubles.contains(id) {
            return Err(Failure::Refused("email is that of another user too, in other letters".to_owned()));
        }
        let with = all.with.remove(id).unwrap_or_default();
        let outcome = self.bring.user(connection, &user, &with).await?;
        let user_id: UserId = match &outcome {
            Outcome::Brought(brought) => brought.user.clone(),
            Outcome::Present(user) => user.clone(),
        };
        let balance = all.balances.remove(id);
        let (earned, spent) = balance
            .as_ref()
            .map_or((0, 0), |balance| (balance.total_earned.unwrap_or(0), balance.total_spent.unwrap_or(0)));
        let orders = all.orders.remove(id).unwrap_or_default();
        let (policy, zone) = (self.policy.clone(), self.zone);
        let (clock, rng) = (SystemClock, SystemRng);
        let mut wallet =
            Bringing::open(connection, (&clock, &rng), (&policy, zone), &user_id, balance, orders).await?;
        while let Some(line) = lines.next_of(id).await? {
            let line: OldLine =
                read("transactions", &line).map_err(|error| Failure::Refused(error.to_string()))?;
            wallet.line(connection, &line).await?;
        }
        let books = wallet.finish(connection, &self.sales).await?;
        self.add(id, outcome, books, (earned, spent));
        Ok(())
    }

    fn add(&mut self, id: &str, outcome: Outcome, books: books::Brought, (earned, spent): (i64, i64)) {
        let sum = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        let one = |is: bool| u64::from(is);
        match outcome {
            Outcome::Brought(account) => {
                let users = &mut self.report.users;
                sum(&mut users.imported, 1);
                sum(&mut users.without_password, one(!account.has_password));
                sum(&mut users.links, account.links);
                sum(&mut users.second_factors, one(account.has_factor));
                sum(&mut users.locked, one(account.is_locked));
                sum(&mut users.recovery_codes, account.recovery_codes);
                self.note("users", id, account.notes);
            }
            Outcome::Present(_) => {
                sum(&mut self.report.users.present, 1);
                let note =
                    "the account was here already and is left as it is; its wallet was brought".to_owned();
                self.note("users", id, vec![note]);
            }
        }
        let credits = &mut self.report.credits;
        sum(&mut credits.wallets, 1);
        sum(&mut credits.transactions, books.lines);
        sum(&mut credits.skipped, books.skipped);
        sum(&mut credits.retyped, books.retyped);
        sum(&mut credits.adjustments, books.adjustments);
        sum(&mut credits.purchases, books.orders);
        sum(&mut credits.answers, books.answers);
        credits.old_earned = credits.old_earned.saturating_add(earned);
        credits.new_earned = credits.new_earned.saturating_add(books.total_earned);
        credits.old_spent = credits.old_spent.saturating_add(spent);
        credits.new_spent = credits.new_spent.saturating_add(books.total_spent);
        self.report.new_mana.add(Mana { free: books.free, paid: books.paid });
        self.note("balances", id, books.notes);
    }

    /// Brings what the older service wrote of the users.
    async fn events(
        &mut self,
        legacy: &mut Legacy,
        connection: &mut PgConnection,
        users: &[String],
    ) -> Result<(), LegacyError> {
        let Some(mut stream) = legacy.stream_events(users) else { return Ok(()) };
        let mut chunk: Vec<OldEvent> = Vec::new();
        loop {
            let row = stream.try_next().await?;
            let is_end = row.is_none();
            if let Some(row) = row {
                match read::<OldEvent>("security_events", &row) {
                    Ok(event) => chunk.push(event),
                    Err(misread) => self.note("security_events", &misread.id, vec![misread.to_string()]),
                }
            }
            if is_end || chunk.len() >= EVENTS {
                let written = self.bring.events(connection, &chunk).await?;
                let events = &mut self.report.users.security_events;
                *events = events.saturating_add(written);
                chunk.clear();
            }
            if is_end {
                return Ok(());
            }
        }
    }

    /// Compares what was read with what became of it.
    fn compare(&mut self, totals: Totals, seen: u64) {
        let report = &mut self.report;
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        report.old_mana = Mana {
            free: totals.free.saturating_sub(self.refused_mana.free),
            paid: totals.balance.saturating_sub(self.refused_mana.paid),
        };
        let users = &report.users;
        let all = users.imported.saturating_add(users.present).saturating_add(users.refused);
        let credits = &report.credits;
        let lines = credits.transactions.saturating_add(credits.skipped).saturating_add(credits.passed_over);
        let (old, new) = (report.old_mana, report.new_mana);
        let is_same = if self.tells_apart { old == new } else { old.all() == new.all() };
        let check = |what, ok, detail| Check { what, ok, detail };
        report.checks = vec![
            check(
                "users",
                number(report.source.users) == all && all == seen,
                format!("{} there, {all} accounted for", report.source.users),
            ),
            check(
                "transactions",
                number(report.source.transactions) == lines,
                format!(
                    "{} there, {lines} accounted for; the rest are of no user",
                    report.source.transactions
                ),
            ),
            check(
                "mana",
                is_same,
                format!(
                    "{} paid and {} free there but for refused users, {} and {} here",
                    old.paid, old.free, new.paid, new.free
                ),
            ),
            check(
                "nothing moved meanwhile",
                self.moved_on == 0,
                format!("{} wallets have moved there since they were brought", self.moved_on),
            ),
        ];
    }

    /// Asks the database itself what it has, and proves all of its books.
    async fn prove(&mut self) -> Result<(), LegacyError> {
        let sums = books::sum_brought(&mut *self.database.acquire().await?).await?;
        let here = Mana { free: sums.free, paid: sums.paid };
        let new = self.report.new_mana;
        self.report.checks.push(Check {
            what: "wallets",
            ok: sums.untrue == 0 && here == new && sums.by_lines == here.all(),
            detail: format!(
                "{} are here, with {} by what was noted and {} by their last lines; {} contradict themselves",
                sums.wallets,
                here.all(),
                sums.by_lines,
                sums.untrue
            ),
        });
        let of = u64::try_from(verify::count_wallets(self.database, None).await?).unwrap_or(0);
        let scope = Scope { since: None, daily_zone: self.zone };
        let tell = &mut self.tell;
        let proof = verify::verify(self.database, scope, |report| {
            tell(Step::Proven { wallets: report.wallets, of });
        })
        .await?;
        let first =
            proof.findings.first().map(|finding| format!("; the first: {finding}")).unwrap_or_default();
        self.report.checks.push(Check {
            what: "ledger verify",
            ok: proof.is_true(),
            detail: format!(
                "{} wallets with {} lines, {} lies{first}",
                proof.wallets, proof.lines, proof.found
            ),
        });
        Ok(())
    }
}
