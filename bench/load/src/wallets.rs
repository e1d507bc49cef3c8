//! Many users with a full wallet and an access token each, without hashing a password for each: rows are copied inside the
//! database, and tokens are signed by the key that the service is given.

use crate::connection::{Connection, get_as};
use crate::error::BenchError;
use crate::limits::pem_of;
use crate::postgres::Postgres;
use crate::seed::{self, Session};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::EncodingKey;
use serde_json::{Map, Value};
use std::net::SocketAddr;

/// What the copied users and their sessions are called, before a number.
const NAME: &str = "spender";
/// Rows of a history that one statement writes.
const BATCH: u64 = 250_000;

/// Signs as the service does, because it is given the same key.
#[derive(Debug)]
pub(crate) struct Signer {
    pub(crate) pem: String,
}

impl Signer {
    pub(crate) fn new() -> Result<Self, BenchError> {
        Ok(Self { pem: pem_of(&KeyPair::generate(KeySize::Rsa2048)?)? })
    }

    /// Tokens of the copied users: what the service itself claimed of `pattern`, with another user and session.
    async fn tokens(&self, pattern: &Session, count: u32) -> Result<Vec<String>, BenchError> {
        let header = jsonwebtoken::decode_header(&pattern.access_token)?;
        let claims = pattern.access_token.split('.').nth(1).and_then(|part| BASE64.decode(part).ok());
        let claims = claims.and_then(|json| serde_json::from_slice::<Map<String, Value>>(&json).ok());
        let mut claims = claims.ok_or(BenchError::NotUnderstood("an access token"))?;
        let key = EncodingKey::from_rsa_pem(self.pem.as_bytes())?;
        let sign = move || {
            let mut tokens = Vec::new();
            for number in 1..=count {
                let name = format!("{NAME}-{number}");
                claims.insert("email".to_owned(), format!("{name}@example.com").into());
                claims.extend(["sub", "sid", "jti"].map(|claim| (claim.to_owned(), name.clone().into())));
                tokens.push(jsonwebtoken::encode(&header, &claims, &key)?);
                if number % 2_000 == 0 {
                    eprintln!("seeding: {number} of {count} access tokens");
                }
            }
            Ok(tokens)
        };
        tokio::task::spawn_blocking(sign).await?
    }
}

/// Adds `count` users, each with a session and a wallet as `pattern` has them, and gives back their access tokens. Each has
/// been used once when this returns: the service has seen every session, and every wallet answered.
pub(crate) async fn spread(
    server: SocketAddr,
    postgres: &Postgres,
    signer: &Signer,
    pattern: &Session,
    count: u32,
) -> Result<Vec<String>, BenchError> {
    seed::copies(postgres, NAME, count).await?;
    copy_wallets(postgres, &pattern.user_id, count).await?;
    let tokens = signer.tokens(pattern, count).await?;
    let mut connection = Connection::open(server).await?;
    for (token, number) in tokens.iter().zip(1_u32..) {
        let answer = connection.exchange(&get_as(token, "/api/v1/credits/balance")).await?;
        if answer.status != 200 {
            return Err(BenchError::unexpected(format!("the balance of {NAME}-{number}"), answer));
        }
        if number % 2_000 == 0 {
            eprintln!("seeding: {number} of {count} wallets seen");
        }
    }
    seed::settle(postgres).await?;
    Ok(tokens)
}

/// Gives each copied user all that `pattern` has in the ledger, in a wallet of their own. **Adapt here** when the ledger's
/// tables change in kind; new tables and columns come along by themselves.
async fn copy_wallets(postgres: &Postgres, pattern: &str, count: u32) -> Result<(), BenchError> {
    let statement = format!(
        "SET session_replication_role = replica;
         DO $do$
         DECLARE
             relation regclass;
             wallet bigint := (SELECT wallet_id FROM credits.balances WHERE user_id = '{pattern}');
         BEGIN
             FOR relation IN SELECT oid FROM pg_class WHERE relnamespace = 'credits'::regnamespace
                 AND relkind IN ('r', 'p') AND NOT relispartition
                 -- Purchases: a column is computed, and nobody here has bought anything.
                 AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attgenerated <> '')
             LOOP
                 EXECUTE format($copy$
                     INSERT INTO %s OVERRIDING SYSTEM VALUE
                     SELECT copy.* FROM %1$s AS pattern, generate_series(1, {count}) AS n,
                         jsonb_populate_record(pattern, jsonb_build_object(
                             'user_id', '{NAME}-' || n, 'wallet_id', 1000000 + n, 'id', gen_random_uuid())) AS copy
                     WHERE to_jsonb(pattern) @> '{{\"user_id\": \"{pattern}\"}}'
                         OR to_jsonb(pattern) @> jsonb_build_object('wallet_id', %2$L::bigint)
                 $copy$, relation, wallet);
             END LOOP;
         END $do$"
    );
    eprintln!("seeding: {count} wallets, copied");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut postgres.owner().await?).await?;
    Ok(())
}

/// Makes a wallet's history `rows` long, as copies of its newest line, and says which sequence is the newest then. The wallet
/// itself stays behind, so it can't be charged any more. **Adapt here** when the columns of a line change their meaning.
pub(crate) async fn fill_history(postgres: &Postgres, user: &str, rows: u64) -> Result<u64, BenchError> {
    let mut owner = postgres.owner().await?;
    let newest = format!(
        "SELECT max(sequence) FROM credits.transactions
         WHERE wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = '{user}')"
    );
    let pattern: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(newest)).fetch_one(&mut owner).await?;
    sqlx::raw_sql("SET session_replication_role = replica").execute(&mut owner).await?;
    let mut written = u64::try_from(pattern).unwrap_or_default();
    while written < rows {
        let to = rows.min(written + BATCH);
        let statement = format!(
            "INSERT INTO credits.transactions
             SELECT line.* FROM credits.transactions AS pattern, generate_series({written} + 1, {to}) AS n,
                 jsonb_populate_record(pattern, jsonb_build_object(
                     'sequence', n, 'id', lpad(to_hex(n), 32, '0'),
                     'balance_after', balance_after + amount * (n - {pattern}))) AS line
             WHERE pattern.sequence = {pattern}
                 AND pattern.wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = '{user}')"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut owner).await?;
        written = to;
        eprintln!("seeding: {written} of {rows} lines of history");
    }
    seed::settle(postgres).await?;
    Ok(written)
}
