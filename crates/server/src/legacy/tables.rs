//! Which tables and columns the older service's database has. Its versions spell them differently and have more or fewer of them:
//! what is there is looked up, and nothing is assumed.

use std::collections::BTreeMap;

/// Digits of a sum of mana at most: there is no wallet with as many.
pub(super) const MOST_DIGITS: u32 = 16;

/// How a column is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As a text, whatever it is.
    Text,
    /// As a time in UTC.
    Time,
    /// As the number, truth or JSON that it is.
    Value,
}

/// A column that is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    name: &'static str,
    others: &'static [&'static str],
    kind: Kind,
    is_needed: bool,
}

const fn need(name: &'static str, kind: Kind) -> Wanted {
    Wanted { name, others: &[], kind, is_needed: true }
}

const fn may(name: &'static str, kind: Kind) -> Wanted {
    Wanted { name, others: &[], kind, is_needed: false }
}

impl Wanted {
    /// Other names that it has had.
    const fn or(self, others: &'static [&'static str]) -> Self {
        Self { others, ..self }
    }
}

/// A table that is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    /// What it is called in a report.
    pub(super) name: &'static str,
    others: &'static [&'static str],
    schema: &'static str,
    is_needed: bool,
    columns: &'static [Wanted],
}

pub(super) static USERS: Spec = Spec {
    name: "users",
    others: &["user"],
    schema: "auth",
    is_needed: true,
    columns: &[
        need("id", Kind::Text),
        need("email", Kind::Text),
        may("emailVerified", Kind::Value),
        may("name", Kind::Text),
        may("image", Kind::Text).or(&["avatarUrl"]),
        may("role", Kind::Text),
        may("twoFactorEnabled", Kind::Value),
        may("createdAt", Kind::Time),
        may("deletedAt", Kind::Time),
    ],
};

pub(super) static ACCOUNTS: Spec = Spec {
    name: "accounts",
    others: &["account"],
    schema: "auth",
    is_needed: false,
    columns: &[
        need("userId", Kind::Text),
        need("providerId", Kind::Text).or(&["provider"]),
        need("accountId", Kind::Text).or(&["providerAccountId"]),
        may("password", Kind::Text),
        may("createdAt", Kind::Time),
    ],
};

pub(super) static PASSWORDS: Spec = Spec {
    name: "passwords",
    others: &["password"],
    schema: "auth",
    is_needed: false,
    columns: &[
        need("userId", Kind::Text),
        need("hashedPassword", Kind::Text).or(&["passwordHash", "hash", "password"]),
    ],
};

pub(super) static FACTORS: Spec = Spec {
    name: "two_factor_auth",
    others: &["twoFactor", "twoFactors"],
    schema: "auth",
    is_needed: false,
    columns: &[
        need("userId", Kind::Text),
        need("secret", Kind::Text),
        may("enabled", Kind::Value),
        may("backupCodes", Kind::Value),
    ],
};

pub(super) static SESSIONS: Spec = Spec {
    name: "sessions",
    others: &["session"],
    schema: "auth",
    is_needed: false,
    columns: &[may("expiresAt", Kind::Time), may("revokedAt", Kind::Time)],
};

pub(super) static EVENTS: Spec = Spec {
    name: "security_events",
    others: &["securityEvent"],
    schema: "auth",
    is_needed: false,
    columns: &[
        may("id", Kind::Text),
        need("userId", Kind::Text),
        need("eventType", Kind::Text).or(&["type"]),
        may("ipAddress", Kind::Text),
        may("userAgent", Kind::Text),
        may("createdAt", Kind::Time),
    ],
};

pub(super) static PASSKEYS: Spec =
    Spec { name: "passkeys", others: &["passkey"], schema: "auth", is_needed: false, columns: &[] };

pub(super) static BALANCES: Spec = Spec {
    name: "balances",
    others: &["balance"],
    schema: "credits",
    is_needed: true,
    columns: &[
        need("userId", Kind::Text),
        need("balance", Kind::Value),
        may("freeCreditsRemaining", Kind::Value),
        may("totalEarned", Kind::Value),
        may("totalSpent", Kind::Value),
        may("lastDailyResetAt", Kind::Time),
        may("createdAt", Kind::Time),
    ],
};

pub(super) static TRANSACTIONS: Spec = Spec {
    name: "transactions",
    others: &["transaction"],
    schema: "credits",
    is_needed: true,
    columns: &[
        need("id", Kind::Text),
        need("userId", Kind::Text),
        need("type", Kind::Text),
        need("amount", Kind::Value),
        may("status", Kind::Text),
        may("appId", Kind::Text),
        may("description", Kind::Text),
        may("metadata", Kind::Value),
        may("idempotencyKey", Kind::Text),
        may("organizationId", Kind::Text).or(&["guildId"]),
        may("createdAt", Kind::Time),
    ],
};

pub(super) static PACKAGES: Spec = Spec {
    name: "packages",
    others: &["package"],
    schema: "credits",
    is_needed: false,
    columns: &[
        need("id", Kind::Text),
        need("name", Kind::Text),
        need("credits", Kind::Value),
        need("priceEuroCents", Kind::Value),
        may("description", Kind::Text),
        may("stripePriceId", Kind::Text),
        may("active", Kind::Value),
        may("sortOrder", Kind::Value),
        may("metadata", Kind::Value),
    ],
};

pub(super) static PURCHASES: Spec = Spec {
    name: "purchases",
    others: &["purchase"],
    schema: "credits",
    is_needed: false,
    columns: &[
        need("id", Kind::Text),
        need("userId", Kind::Text),
        need("credits", Kind::Value),
        need("priceEuroCents", Kind::Value),
        need("status", Kind::Text),
        may("packageId", Kind::Text),
        may("stripePaymentIntentId", Kind::Text),
        may("stripeCheckoutSessionId", Kind::Text).or(&["stripeSessionId"]),
        may("stripeCustomerId", Kind::Text),
        may("metadata", Kind::Value),
        may("createdAt", Kind::Time),
        may("completedAt", Kind::Time),
    ],
};

pub(super) static USAGE: Spec = Spec {
    name: "usage_stats",
    others: &["usageStat"],
    schema: "credits",
    is_needed: false,
    columns: &[may("creditsUsed", Kind::Value)],
};

/// A column of a database: schema, table, name and type.
pub(super) type Found = (String, String, String, String);

/// A table that is there.
#[derive(Debug)]
pub(super) struct Table {
    /// Schema and name, as SQL has them.
    pub(super) relation: String,
    columns: BTreeMap<&'static str, (Kind, String, String)>,
}

impl Table {
    /// The table of a database; a list of what it lacks where it lacks something, and nothing where there is no such table and none
    /// is needed.
    pub(super) fn find(spec: &Spec, found: &[Found]) -> Result<Option<Self>, Vec<String>> {
        let names = || std::iter::once(spec.name).chain(spec.others.iter().copied());
        let in_schema = |schema: &str| {
            let tables = names().find_map(|name| {
                found.iter().find(|(of, table, ..)| of == schema && plain(table) == plain(name))
            });
            tables.map(|(of, table, ..)| (of.clone(), table.clone()))
        };
        let Some((schema, table)) = in_schema(spec.schema).or_else(|| in_schema("public")) else {
            return if spec.is_needed {
                Err(vec![format!("the table {}.{}", spec.schema, spec.name)])
            } else {
                Ok(None)
            };
        };
        let here = || found.iter().filter(|(of, name, ..)| *of == schema && *name == table);
        let (mut columns, mut missing) = (BTreeMap::new(), Vec::new());
        for wanted in spec.columns {
            let mut spellings = std::iter::once(wanted.name).chain(wanted.others.iter().copied());
            let column =
                spellings.find_map(|name| here().find(|(.., column, _)| plain(column) == plain(name)));
            match column {
                Some((.., name, of)) => {
                    drop(columns.insert(wanted.name, (wanted.kind, quoted(name), of.clone())));
                }
                None if wanted.is_needed => {
                    missing.push(format!("the column {} of {schema}.{table}", wanted.name));
                }
                None => {}
            }
        }
        let relation = format!("{}.{}", quoted(&schema), quoted(&table));
        if missing.is_empty() { Ok(Some(Self { relation, columns })) } else { Err(missing) }
    }

    /// Whether it has a column.
    pub(super) fn has(&self, name: &str) -> bool {
        self.columns.contains_key(name)
    }

    /// A column, as SQL has it.
    pub(super) fn column(&self, name: &str) -> String {
        self.columns.get(name).map_or_else(|| "NULL".to_owned(), |(_, column, _)| format!("t.{column}"))
    }

    /// A column as an instant; times without a zone are UTC, as that service wrote them.
    pub(super) fn instant(&self, name: &str) -> String {
        match self.columns.get(name) {
            None => "NULL::timestamptz".to_owned(),
            Some((_, column, of)) if of == "timestamp with time zone" => format!("t.{column}"),
            Some((_, column, _)) => format!("(t.{column}::timestamp AT TIME ZONE 'UTC')"),
        }
    }

    /// The sum of a column over the rows in which it is a whole number of at most [`MOST_DIGITS`] digits, as a text.
    pub(super) fn sum(&self, name: &str) -> String {
        let column = self.column(name);
        format!(
            "coalesce(sum(CASE WHEN {column}::text ~ '^-?[0-9]{{1,{MOST_DIGITS}}}$' THEN ({column}::text)::numeric END), 0)::text"
        )
    }

    /// A row as a JSON object with the members of one spelling, and `more` of them: pairs of names and SQL.
    pub(super) fn object(&self, more: &[(&str, String)]) -> String {
        let columns = self.columns.iter().map(|(name, (kind, column, of))| {
            let value = match kind {
                Kind::Text => format!("t.{column}::text"),
                Kind::Value if of == "numeric" || of == "double precision" || of == "real" => {
                    format!("to_jsonb(t.{column})")
                }
                Kind::Value => format!("t.{column}"),
                Kind::Time => written(&self.instant(name)),
            };
            format!("'{name}', {value}")
        });
        let more = more.iter().map(|(name, value)| format!("'{name}', {value}"));
        format!("json_build_object({})::text", columns.chain(more).collect::<Vec<_>>().join(", "))
    }

    /// A condition that a column is one of the texts of an array. Compared as what it is, so that an index is of use.
    pub(super) fn is_any(&self, name: &str, parameter: &str) -> String {
        let (column, of) = (self.column(name), self.columns.get(name).map(|(.., of)| of.as_str()));
        match of {
            Some(of @ ("uuid" | "integer" | "bigint")) => {
                format!("{column} = ANY(({parameter}::text[])::{of}[])")
            }
            _ => format!("{column}::text = ANY({parameter}::text[])"),
        }
    }

    /// A condition that a column is behind a text, in the column's own order.
    pub(super) fn is_behind(&self, name: &str, parameter: &str) -> String {
        let (column, of) = (self.column(name), self.columns.get(name).map(|(.., of)| of.as_str()));
        match of {
            Some(of @ ("uuid" | "integer" | "bigint")) => format!("{column} > ({parameter}::text)::{of}"),
            _ => format!("{column} > {parameter}::text"),
        }
    }
}

/// An instant as RFC 3339 has it.
fn written(instant: &str) -> String {
    format!("to_char({instant} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
}

/// A name without what spellings differ in.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| *letter != '_').flat_map(char::to_lowercase).collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(schema: &str, table: &str, names: &[&str]) -> Vec<Found> {
        let found =
            |name: &&str| (schema.to_owned(), table.to_owned(), (*name).to_owned(), "text".to_owned());
        names.iter().map(found).collect()
    }

    #[test]
    fn both_spellings_are_found_in_either_schema() {
        let snake = columns("auth", "accounts", &["id", "user_id", "provider_id", "account_id", "password"]);
        let camel = columns("public", "account", &["id", "userId", "providerId", "accountId"]);
        let first = columns("auth", "accounts", &["user_id", "provider", "provider_account_id"]);
        for (found, relation, column) in [
            (&snake, "\"auth\".\"accounts\"", "t.\"provider_id\""),
            (&camel, "\"public\".\"account\"", "t.\"providerId\""),
            (&first, "\"auth\".\"accounts\"", "t.\"provider\""),
        ] {
            let table = Table::find(&ACCOUNTS, found).unwrap().unwrap();
            assert_eq!((table.relation.as_str(), table.column("providerId").as_str()), (relation, column));
        }
        assert!(!Table::find(&ACCOUNTS, &camel).unwrap().unwrap().has("password"));
    }

    #[test]
    fn what_is_missing_is_named_all_at_once() {
        assert_eq!(Table::find(&USERS, &[]).unwrap_err(), ["the table auth.users"]);
        assert!(Table::find(&PURCHASES, &[]).unwrap().is_none());
        let missing = Table::find(&TRANSACTIONS, &columns("credits", "transactions", &["id", "user_id"]));
        assert_eq!(
            missing.unwrap_err(),
            ["the column type of credits.transactions", "the column amount of credits.transactions"]
        );
    }

    #[test]
    fn a_name_can_not_end_its_quotes() {
        let found = columns("auth", "users", &["id", "e\"mail", "email"]);
        let table = Table::find(&USERS, &found).unwrap().unwrap();
        assert!(table.object(&[]).contains("t.\"email\"::text"));
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
