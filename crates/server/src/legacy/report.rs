//! What an import came to, for people and programs.

use serde::Serialize;

/// A row that was refused, and with it what belongs to it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refused {
    /// Of which table.
    pub(crate) table: &'static str,
    /// Which one.
    pub(crate) id: String,
    /// Why.
    pub(crate) reason: String,
}

/// Whether something is as it was.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    /// What was compared.
    #[serde(rename = "check")]
    pub(crate) what: &'static str,
    /// Whether it is the same.
    pub(crate) ok: bool,
    /// What was seen.
    pub(crate) detail: String,
}

/// Free and paid mana.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mana {
    /// Given away; of a service that told nothing apart, nothing.
    pub(crate) free: i64,
    /// The rest.
    pub(crate) paid: i64,
}

impl Mana {
    pub(crate) fn add(&mut self, other: Self) {
        self.free = self.free.saturating_add(other.free);
        self.paid = self.paid.saturating_add(other.paid);
    }

    pub(crate) fn all(self) -> i64 {
        self.free.saturating_add(self.paid)
    }
}

/// What was there, and what became of it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Whether nothing was kept.
    pub(crate) is_dry_run: bool,
    /// Rows of the older database.
    pub(crate) source: SourceCounts,
    /// Accounts.
    pub(crate) users: UserCounts,
    /// Wallets and their lines.
    pub(crate) credits: CreditCounts,
    /// What the older wallets have, but for those of refused users.
    pub(crate) old_mana: Mana,
    /// What they have here.
    pub(crate) new_mana: Mana,
    /// Things that were refused.
    pub(crate) refused: u64,
    /// Things that are not as they were, and are told.
    pub(crate) noted: u64,
    /// What was compared at the end.
    pub(crate) checks: Vec<Check>,
}

/// Rows of the older database, by table.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceCounts {
    pub(crate) users: i64,
    pub(crate) accounts: i64,
    pub(crate) passwords: i64,
    pub(crate) second_factors: i64,
    pub(crate) passkeys: i64,
    pub(crate) live_sessions: i64,
    pub(crate) security_events: i64,
    pub(crate) balances: i64,
    pub(crate) transactions: i64,
    pub(crate) packages: i64,
    pub(crate) purchases: i64,
    pub(crate) usage_stats: i64,
    /// What the statistics say was spent.
    pub(crate) used: i64,
}

/// What became of accounts.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserCounts {
    /// Brought now.
    pub(crate) imported: u64,
    /// Here already, with their wallets.
    pub(crate) present: u64,
    /// Refused, with all that is theirs.
    pub(crate) refused: u64,
    /// Brought without a password that can be verified.
    pub(crate) without_password: u64,
    /// Accounts elsewhere that open one.
    pub(crate) links: u64,
    /// Second factors that their owners go on using.
    pub(crate) second_factors: u64,
    /// Codes on paper.
    pub(crate) recovery_codes: u64,
    /// Users who can't sign in before an administrator takes their second factor away.
    pub(crate) locked: u64,
    /// What the older service wrote of them.
    pub(crate) security_events: u64,
}

/// What became of wallets.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreditCounts {
    /// Wallets brought now.
    pub(crate) wallets: u64,
    /// Lines as they were.
    pub(crate) transactions: u64,
    /// Lines that never happened or changed nothing.
    pub(crate) skipped: u64,
    /// Lines that are of another type here.
    pub(crate) retyped: u64,
    /// Lines that make up for what the history did not say.
    pub(crate) adjustments: u64,
    /// Lines of refused users, and of users who were here already.
    pub(crate) passed_over: u64,
    /// Packages.
    pub(crate) packages: u64,
    /// Orders.
    pub(crate) purchases: u64,
    /// Answers for requests that come again.
    pub(crate) answers: u64,
    /// Earned, by the older wallets and by their lines.
    pub(crate) old_earned: i64,
    pub(crate) new_earned: i64,
    /// Spent, by the older wallets and by their lines.
    pub(crate) old_spent: i64,
    pub(crate) new_spent: i64,
}

impl Report {
    /// Whether everything is here as it was.
    pub(crate) fn is_whole(&self) -> bool {
        self.refused == 0 && self.checks.iter().all(|check| check.ok)
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self { source, users, credits, old_mana, new_mana, .. } = self;
        let mut lines = vec![
            format!("{:<18}{:>12}   here", "table", "there"),
            format!(
                "{:<18}{:>12}   {} brought, {} here already, {} refused; {} without a password",
                "users", source.users, users.imported, users.present, users.refused, users.without_password
            ),
            format!("{:<18}{:>12}   {} links to other services", "accounts", source.accounts, users.links),
            format!(
                "{:<18}{:>12}   {} go on, with {} recovery codes; {} can't be opened and lock their accounts",
                "two_factor_auth",
                source.second_factors,
                users.second_factors,
                users.recovery_codes,
                users.locked
            ),
            format!("{:<18}{:>12}   left out: they are added again", "passkeys", source.passkeys),
            format!("{:<18}{:>12}   end: people sign in again", "live sessions", source.live_sessions),
            format!(
                "{:<18}{:>12}   {} brought",
                "security_events", source.security_events, users.security_events
            ),
            format!("{:<18}{:>12}   {} wallets brought", "balances", source.balances, credits.wallets),
            format!(
                "{:<18}{:>12}   {} brought, {} of another type; {} changed nothing and are left out; {} adjustments added",
                "transactions",
                source.transactions,
                credits.transactions,
                credits.retyped,
                credits.skipped,
                credits.adjustments
            ),
            format!("{:<18}{:>12}   {} brought", "packages", source.packages, credits.packages),
            format!("{:<18}{:>12}   {} brought", "purchases", source.purchases, credits.purchases),
            format!(
                "{:<18}{:>12}   counted anew from the transactions; {} was used by the old ones",
                "usage_stats", source.usage_stats, source.used
            ),
            format!(
                "{:<18}{:>12}   {} paid and {} free here",
                "mana",
                old_mana.all(),
                new_mana.paid,
                new_mana.free
            ),
            format!(
                "{:<18}{:>12}   {} by the transactions",
                "earned", credits.old_earned, credits.new_earned
            ),
            format!("{:<18}{:>12}   {} by the transactions", "spent", credits.old_spent, credits.new_spent),
        ];
        for Check { what, ok, detail } in &self.checks {
            lines.push(format!("{}  {what}: {detail}", if *ok { "ok  " } else { "FAIL" }));
        }
        lines
    }
}
