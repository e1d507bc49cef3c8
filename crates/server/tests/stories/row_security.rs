//! One user's rows can't be seen as another, and the books can't be changed behind the ledger's back. Proven table by
//! table from the catalogue, so that a new table can't be forgotten.

use crate::story::{PASSWORD, Story, User, spend_of};
use mana_kernel::UserId;
use serde_json::json;
use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

/// Tables without a user, and why they need none.
const NOBODYS: [&str; 6] = [
    "auth.jwks",
    "auth.admin_claims",
    "auth.mail_budgets",
    "credits.packages",
    "auth.revocations",
    "auth.service_keys",
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
        "INSERT INTO credits.packages (id, name, credits, price_euro_cents, active, sort_order, created_at)
         VALUES ('small', 'Small', 100, 100, true, 1, now())",
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
        sqlx::query(
            "INSERT INTO credits.purchases (user_id, id, package_id, credits, price_euro_cents, status, created_at)
             VALUES ($1, $1, 'small', 100, 100, 'pending', now())",
        )
        .bind(&user.id)
        .execute(&mut owner)
        .await
        .unwrap();
    }
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
    for table in ["credits.transactions", "credits.entries"] {
        for (change, restricted) in [
            (format!("UPDATE {table} SET amount = 1"), "23001"),
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
    let line = |sequence: i64, amount: i64| {
        format!(
            "INSERT INTO credits.transactions (wallet_id, sequence, id, type, amount, balance_after, app_id, description, created_at, hash)
             SELECT wallet_id, {sequence}, gen_random_uuid(), 'usage', {amount}, 150 + {amount}, 'a', 'b', now(), head FROM credits.balances"
        )
    };
    let legs = |rows: &str| {
        format!(
            "INSERT INTO credits.entries SELECT wallet_id, 2, leg, account, grant_sequence, amount FROM credits.balances, (VALUES {rows}) AS v (leg, account, grant_sequence, amount)"
        )
    };
    let balanced = legs("(1::smallint, 'wallet', 1::bigint, -5::bigint), (2::smallint, 'revenue', NULL, 5)");
    for (statements, constraint) in [
        (vec![line(1, -5)], "transactions_pkey"),
        (vec![line(2, 0)], "transactions_amount_nonzero"),
        (vec![balanced.clone()], "entries_transaction_fkey"),
        (
            vec![
                line(2, -5),
                legs("(1::smallint, 'wallet', 1::bigint, -5::bigint), (2::smallint, 'revenue', NULL, 6)"),
            ],
            "entries_sum_to_zero",
        ),
        (vec![line(2, -6), balanced.clone()], "entries_sum_to_zero"),
        (
            vec![
                line(2, -5),
                balanced.clone(),
                legs("(3::smallint, 'wallet', 1::bigint, -5::bigint), (4::smallint, 'revenue', NULL, 5)"),
            ],
            "entries_sum_to_zero",
        ),
        (
            vec![
                line(2, -5),
                legs("(1::smallint, 'wallet', 9::bigint, -5::bigint), (2::smallint, 'revenue', NULL, 5)"),
            ],
            "entries_grant_fkey",
        ),
        (vec!["UPDATE credits.balances SET free = -1".to_owned()], "balances_free_range"),
        (vec!["UPDATE credits.grants SET remaining = granted + 1".to_owned()], "grants_remaining_range"),
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
    for statement in [line(2, -5), balanced] {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await
            .expect("the control: what balances is taken");
    }
}
