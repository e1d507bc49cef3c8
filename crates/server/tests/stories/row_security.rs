//! One user's rows can't be seen as another, and the books can't be changed behind the ledger's back. Proven table by
//! table from the catalogue, so that a new table can't be forgotten.

use crate::story::{PASSWORD, Story, User, spend_of};
use crate::{oauth, passkeys, two_factor, webhooks};
use mana_kernel::UserId;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

/// Tables without a user, and why they need none.
const NOBODYS: [&str; 18] = [
    "auth.webhook_endpoints",
    "auth.webhook_secrets",
    "auth.webhook_deliveries",
    "auth.mail_requests",
    "auth.jwks",
    "auth.admin_claims",
    "auth.mail_budgets",
    "auth.bonus_mailboxes",
    "auth.bonus_networks",
    "auth.finished_flows",
    "credits.packages",
    "credits.package_versions",
    "credits.payment_statements",
    "credits.stripe_events",
    "credits.roots",
    "credits.verify_rounds",
    "auth.revocations",
    "auth.service_keys",
];

/// Where the export of an account has what a table has of its user.
const IN_EXPORT: [(&str, &str); 17] = [
    ("auth.users", "/user/id"),
    ("auth.sessions", "/sessions/0/id"),
    ("auth.security_events", "/securityEvents/0/id"),
    ("auth.accounts", "/linkedAccounts/0/id"),
    ("auth.passkeys", "/passkeys/0/id"),
    ("auth.two_factor_auth", "/secondFactor/0/setUpAt"),
    ("auth.recovery_codes", "/secondFactor/0/recoveryCodesLeft"),
    ("auth.trusted_devices", "/trustedDevices/0/id"),
    ("credits.balances", "/credits/wallet/0/free"),
    ("credits.transactions", "/credits/transactions/0/id"),
    ("credits.usage_stats", "/credits/usage/0/day"),
    ("credits.holds", "/credits/holds/0/id"),
    ("credits.purchases", "/credits/purchases/0/id"),
    ("credits.refunds", "/credits/refunds/0/id"),
    ("credits.disputes", "/credits/disputes/0/id"),
    ("credits.stripe_customers", "/credits/stripeCustomers/0/customerId"),
    ("credits.auto_top_ups", "/credits/autoTopUp/0/status"),
];

/// Tables with a user that the export leaves out, and why.
const NOT_IN_EXPORT: [(&str, &str); 17] = [
    ("auth.passwords", "a hash"),
    ("auth.imported_passwords", "how a hash was made"),
    ("auth.refresh_chains", "what tokens of the sessions are made of"),
    ("auth.disown_tokens", "hashes of links"),
    ("auth.verification_tokens", "hashes of links and codes, for a day at most"),
    ("auth.pending_sign_ins", "a sign-in that waits, for minutes"),
    ("auth.passkey_challenges", "a round trip, for minutes"),
    ("auth.outgoing_mails", "a mail that is yet to go, sealed"),
    ("auth.pending_bonuses", "a bonus that waits for an address; when it comes, it is a transaction"),
    ("auth.erasures", "when what a deleted account left is erased: nobody can ask any more"),
    ("auth.webhook_events", "what apps are told of the rows that are in it"),
    ("credits.grants", "parts of the wallet, made and used by transactions"),
    ("credits.remembered_answers", "answers that were given"),
    ("credits.low_balance_notices", "a mail that is yet to be written, for seconds"),
    ("credits.anchors", "proof of the books"),
    ("credits.imported_wallets", "proof of where the books began, which the first transaction says"),
    ("credits.moved_wallets", "proof of where the books were when they were moved"),
];

struct Table {
    name: String,
    /// An expression that gives the id of a row's user; none for the tables above.
    owner: Option<&'static str>,
    may_be_read: bool,
}

async fn tables(connection: &mut PgConnection) -> Vec<Table> {
    let rows = sqlx::query(
        "SELECT format('%I.%I', nspname, relname) AS name, has_any_column_privilege('mana_user', c.oid, 'SELECT') AS may_be_read,
                EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'user_id' AND NOT attisdropped) AS by_user,
                EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'wallet_id' AND NOT attisdropped) AS by_wallet
         FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
         WHERE nspname IN ('auth', 'credits') AND relkind IN ('r', 'p') ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    rows.iter()
        .map(|row| {
            let name: String = row.get("name");
            let owner = match (name.as_str(), row.get("by_user"), row.get("by_wallet")) {
                ("auth.users", ..) => Some("id"),
                (_, true, _) => Some("user_id"),
                (_, _, true) => {
                    Some("(SELECT b.user_id FROM credits.balances b WHERE b.wallet_id = t.wallet_id)")
                }
                (name, false, false) => {
                    assert!(
                        NOBODYS.contains(&name),
                        "{name} has no user: protect it, or say here why it needs none"
                    );
                    None
                }
            };
            Table { name, owner, may_be_read: row.get("may_be_read") }
        })
        .collect()
}

/// Leaves a row of each user in every table that has users.
async fn two_users(story: &Story) -> (User, User) {
    let (ada, bob) = (story.user("ada@example.com").await, story.user("bob@example.com").await);
    let mut owner = story.database.owner().await;
    sqlx::query(
        "WITH package AS (
             INSERT INTO credits.packages (id, name, credits, price_euro_cents, active, sort_order, created_at)
             VALUES ('small', 'Small', 100, 100, true, 1, now())
         )
         INSERT INTO credits.package_versions (package_id, version, name, credits, bonus_credits, price_euro_cents, prices, created_at)
         VALUES ('small', 1, 'Small', 100, 0, 100, '{}', now())",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    for user in [&ada, &bob] {
        // A second device: a mail waits, with a link that ends it.
        let device = json!({"email": user.email, "password": PASSWORD, "deviceId": "another"});
        assert_eq!(story.post("/api/v1/auth/login", &device).await.status, 200);
        let mut body = spend_of(1);
        body["idempotencyKey"] = json!("k");
        assert_eq!(story.spend(user, &body).await.status, 201);
        let hold = story.client.post("/api/v1/credits/holds", &spend_of(1)).bearer(&user.access_token);
        assert_eq!(hold.send().await.status, 201);
        two_factor::leave_rows(story, user).await;
        oauth::leave_row(story, user).await;
        passkeys::leave_rows(story, user).await;
        webhooks::leave_rows(story, user).await;
        sqlx::query(
            "WITH purchase AS (
                 INSERT INTO credits.purchases (user_id, id, package_id, package_version, credits, price_euro_cents, currency, price_cents, created_at)
                 VALUES ($1, $1, 'small', 1, 100, 100, 'eur', 100, now())
             ), refund AS (
                 INSERT INTO credits.refunds (user_id, id, purchase_id, amount_cents, status, created_at, updated_at)
                 VALUES ($1, $1, $1, 1, 'failed', now(), now())
             ), dispute AS (
                 INSERT INTO credits.disputes (user_id, id, purchase_id, amount_cents, status, created_at, updated_at)
                 VALUES ($1, $1, $1, 1, 'won', now(), now())
             ), top_up AS (
                 INSERT INTO credits.auto_top_ups (user_id, status, threshold_mana, package_id, currency, credits, price_cents, monthly_cap_cents,
                     language, livemode, customer_id, consented_at, created_at, updated_at)
                 VALUES ($1, 'off', 1, 'small', 'eur', 100, 100, 100, 'en', false, $1, now(), now(), now())
             )
             INSERT INTO credits.stripe_customers (user_id, livemode, customer_id, created_at) VALUES ($1, false, $1, now())",
        )
        .bind(&user.id)
        .execute(&mut owner)
        .await
        .unwrap();
        for sql in [
            "INSERT INTO auth.imported_passwords (user_id, scheme) VALUES ($1, 'bcrypt:4')",
            "INSERT INTO auth.pending_bonuses (user_id, created_at) VALUES ($1, now())",
            "INSERT INTO auth.erasures (user_id, due_at) VALUES ($1, now() + interval '30 days')",
            "INSERT INTO credits.imported_wallets SELECT wallet_id, 0, 0, 0, now() FROM credits.balances WHERE user_id = $1",
            "INSERT INTO credits.moved_wallets SELECT wallet_id, 0, 0 FROM credits.balances WHERE user_id = $1",
        ] {
            sqlx::query(sql).bind(&user.id).execute(&mut owner).await.unwrap();
        }
    }
    story.workers.prove_books().await;
    (ada, bob)
}

async fn count(connection: &mut PgConnection, sql: String) -> Result<i64, String> {
    let counted: Result<i64, _> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await;
    counted.map_err(|error| {
        error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned()
    })
}

const INSUFFICIENT_PRIVILEGE: &str = "42501";

#[tokio::test]
async fn what_a_table_has_of_a_person_is_in_the_export_or_is_said_not_to_be() {
    let story = Story::new().await;
    let (ada, bob) = two_users(&story).await;
    let export = story.get("/api/v1/auth/export", &ada).await;
    assert_eq!(export.status, 200, "{}", export.json);
    let text = String::from_utf8_lossy(&export.bytes);
    assert!(text.contains(&ada.id) && !text.contains(&bob.id) && !text.contains(&bob.email));
    let (mut named, mut there) = (BTreeSet::new(), BTreeSet::new());
    for (name, pointer) in IN_EXPORT {
        let shown = export.json.pointer(pointer);
        assert!(shown.is_some_and(|shown| !shown.is_null()), "{name}: {pointer} is not in the export");
        named.insert(name.to_owned());
    }
    for (name, reason) in NOT_IN_EXPORT {
        assert!(named.insert(name.to_owned()), "{name} is in the export, and is not: {reason}");
    }
    for table in tables(&mut story.database.owner().await).await {
        if table.owner.is_some() {
            there.insert(table.name);
        }
    }
    assert_eq!(there, named, "a table with a user: add it to the export, or say above why it is not there");
}

#[tokio::test]
async fn as_a_user_every_table_shows_that_users_rows_and_without_a_user_none() {
    let story = Story::new().await;
    let (ada, bob) = two_users(&story).await;
    let mut owner = story.database.owner().await;
    let service = story.database.service();
    for table in tables(&mut owner).await {
        let Table { name, owner: column, may_be_read } = table;
        let Some(column) = column else { continue };
        let rows_of = |user: &User| format!("SELECT count(*) FROM {name} t WHERE {column} = '{}'", user.id);
        for user in [&ada, &bob] {
            let there = count(&mut owner, rows_of(user)).await.unwrap();
            assert!(there > 0, "{name} has no row of {}, so nothing would be proven", user.email);
        }
        let user_id: UserId = ada.id.parse().unwrap();
        let mut as_ada = service.begin_as(&user_id).await.unwrap();
        if !may_be_read {
            assert_eq!(
                count(&mut as_ada, format!("SELECT count(*) FROM {name}")).await,
                Err(INSUFFICIENT_PRIVILEGE.into()),
                "{name}"
            );
            continue;
        }
        let own = count(&mut as_ada, rows_of(&ada)).await.unwrap();
        assert!(own > 0, "{name} hides a user's own rows");
        assert_eq!(
            count(&mut as_ada, format!("SELECT count(*) FROM {name}")).await,
            Ok(own),
            "{name} shows rows of others"
        );
        drop(as_ada);

        let mut as_nobody = service.begin().await.unwrap();
        sqlx::query("SELECT set_config('role', 'mana_user', true)").execute(&mut *as_nobody).await.unwrap();
        assert_eq!(
            count(&mut as_nobody, format!("SELECT count(*) FROM {name}")).await,
            Ok(0),
            "{name} without a user"
        );
    }
}

#[tokio::test]
async fn every_table_has_row_security_on_and_forced_and_the_service_owns_nothing() {
    let story = Story::new().await;
    let mut owner = story.database.owner().await;
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
         WHERE nspname IN ('auth', 'credits') AND relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity)",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert_eq!(open, Vec::<String>::new());
    let above: Vec<String> = sqlx::query_scalar(
        "SELECT rolname::text FROM pg_roles WHERE rolname IN ('mana_service', 'mana_user')
         AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR EXISTS (SELECT FROM pg_class WHERE relowner = pg_roles.oid))",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert_eq!(above, Vec::<String>::new());
}

#[tokio::test]
async fn as_a_user_nothing_can_be_written() {
    let story = Story::new().await;
    let (ada, _) = two_users(&story).await;
    let user_id: UserId = ada.id.parse().unwrap();
    let updates: BTreeMap<String, String> = sqlx::query_as(
        "SELECT format('%I.%I', table_schema, table_name), format('UPDATE %I.%I SET %I = %3$I', table_schema, table_name, min(column_name::text))
         FROM information_schema.columns WHERE table_schema IN ('auth', 'credits') AND is_generated = 'NEVER' AND is_identity = 'NO'
         GROUP BY table_schema, table_name",
    )
    .fetch_all(&mut story.database.owner().await)
    .await
    .unwrap()
    .into_iter()
    .collect();
    for Table { name, .. } in tables(&mut story.database.owner().await).await {
        for write in [
            format!("DELETE FROM {name}"),
            format!("INSERT INTO {name} DEFAULT VALUES"),
            updates[&name].clone(),
        ] {
            let mut as_ada = story.database.service().begin_as(&user_id).await.unwrap();
            let refused = sqlx::query(AssertSqlSafe(write.clone())).execute(&mut *as_ada).await.unwrap_err();
            assert_eq!(
                refused.as_database_error().unwrap().code().unwrap(),
                INSUFFICIENT_PRIVILEGE,
                "{write}"
            );
        }
    }
}

#[tokio::test]
async fn a_settled_line_can_be_changed_by_nobody() {
    let story = Story::new().await;
    two_users(&story).await;
    let service = story.database.service();
    for (table, column) in [("credits.transactions", "amount"), ("credits.grants", "priority")] {
        for (change, restricted) in [
            (format!("UPDATE {table} SET {column} = 1"), "23001"),
            (format!("DELETE FROM {table}"), "23001"),
            (format!("TRUNCATE {table} CASCADE"), "23001"),
        ] {
            let mut as_service = service.begin().await.unwrap();
            let refused =
                sqlx::query(AssertSqlSafe(change.clone())).execute(&mut *as_service).await.unwrap_err();
            assert_eq!(
                refused.as_database_error().unwrap().code().unwrap(),
                INSUFFICIENT_PRIVILEGE,
                "{change} as the service"
            );
            let refused = sqlx::query(AssertSqlSafe(change.clone()))
                .execute(&mut story.database.owner().await)
                .await
                .unwrap_err();
            assert_eq!(
                refused.as_database_error().unwrap().code().unwrap(),
                restricted,
                "{change} as the owner"
            );
        }
    }
    crate::credits::books_are_true(&story).await;
}

#[tokio::test]
async fn the_database_refuses_what_the_state_machine_would_never_post() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let service = story.database.service();
    let line = |sequence: i64, amount: i64, slices: &str, counter: &str| {
        format!(
            "INSERT INTO credits.transactions (wallet_id, sequence, id, type, amount, balance_after, counter, slice_grants, slice_amounts, app_id, description, created_at, hash)
             SELECT wallet_id, {sequence}, gen_random_uuid(), 'usage', {amount}, 150 + {amount}, '{counter}', '{{1}}', '{{{slices}}}', 'a', 'b', now(), head FROM credits.balances"
        )
    };
    let hold = |change: &str| {
        vec![
            "INSERT INTO credits.holds (wallet_id, id, app_id, description, amount, slice_grants, slice_amounts, status, created_at, expires_at, ended_at)
             SELECT wallet_id, gen_random_uuid(), 'a', 'b', 5, '{1}', '{5}', 'released', now(), now(), now() FROM credits.balances".to_owned(),
            format!("UPDATE credits.holds SET {change}"),
        ]
    };
    let balanced = line(2, -5, "-5", "revenue");
    for (statements, constraint) in [
        (vec![line(1, -5, "-5", "revenue")], "transactions_pkey"),
        (vec![line(2, 0, "0", "revenue")], "transactions_amount_nonzero"),
        (vec![line(2, -5, "-6", "revenue")], "transactions_sum_to_zero"),
        (vec![line(2, -5, "", "revenue")], "transactions_slices_paired"),
        (vec![line(2, -5, "-5", "nobody")], "transactions_counter_known"),
        (vec![line(3, -5, "-5", "revenue")], "transactions_continue"),
        (vec!["UPDATE credits.balances SET free = -1".to_owned()], "balances_free_range"),
        (vec!["UPDATE credits.balances SET held = 9007199254740991".to_owned()], "balances_sum_range"),
        (hold("status = 'open', ended_at = NULL"), "holds_end_once"),
    ] {
        let mut transaction = service.begin().await.unwrap();
        let mut refused = None;
        for statement in &statements {
            if let Err(error) = sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut *transaction).await
            {
                refused = error.as_database_error().and_then(|error| error.constraint().map(str::to_owned));
            }
        }
        assert_eq!(refused.as_deref(), Some(constraint), "{statements:?}");
    }
    let mut transaction = service.begin().await.unwrap();
    sqlx::query(AssertSqlSafe(balanced))
        .execute(&mut *transaction)
        .await
        .expect("the control: what balances is taken");
}
