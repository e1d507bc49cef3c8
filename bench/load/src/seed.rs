//! Fills an empty service, through its own API; rows that only have to be there are copied inside the database.

use crate::connection::{Connection, post};
use crate::error::BenchError;
use crate::postgres::Postgres;
use crate::script::text_of;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const PASSWORD: &str = "correct horse battery";
/// As many sign-ins on their way at once as keep every processor hashing.
const WORKERS: usize = 8;

/// A signed-in session and its newest tokens.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) user_id: String,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

/// The request that signs a user in.
pub(crate) fn login_request(user: usize) -> Vec<u8> {
    post("/api/v1/auth/login", &credentials(user))
}

fn credentials(user: usize) -> String {
    format!(r#"{{"email":"user{user}@example.com","password":"{PASSWORD}"}}"#)
}

/// Registers users `from..to` and signs each in `sessions_each` times.
pub(crate) async fn sessions(
    server: SocketAddr,
    users: std::ops::Range<usize>,
    sessions_each: usize,
) -> Result<Vec<Session>, BenchError> {
    let next = Arc::new(AtomicUsize::new(users.start));
    let (first, end) = (users.start, users.end);
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS.min(users.len()) {
        let next = Arc::clone(&next);
        workers.spawn(async move {
            let mut connection = Connection::open(server).await?;
            let mut made = Vec::new();
            loop {
                let user = next.fetch_add(1, Ordering::Relaxed);
                if user >= end {
                    return Ok::<_, BenchError>(made);
                }
                register(&mut connection, user).await?;
                for _ in 0..sessions_each {
                    made.push(sign_in(&mut connection, user).await?);
                }
            }
        });
    }
    let mut made = Vec::new();
    let mut progress = tokio::time::interval(Duration::from_secs(2));
    while !workers.is_empty() {
        tokio::select! {
            Some(ended) = workers.join_next() => made.extend(ended??),
            _ = progress.tick() => {
                let begun = next.load(Ordering::Relaxed).clamp(first, end) - first;
                eprintln!("seeding: {begun} of {} users, {sessions_each} sessions each", users.len());
            }
        }
    }
    Ok(made)
}

async fn register(connection: &mut Connection, user: usize) -> Result<(), BenchError> {
    let answer = connection.exchange(&post("/api/v1/auth/register", &credentials(user))).await?;
    if answer.status == 201 {
        return Ok(());
    }
    Err(BenchError::unexpected("a registration", answer))
}

async fn sign_in(connection: &mut Connection, user: usize) -> Result<Session, BenchError> {
    let answer = connection.exchange(&login_request(user)).await?;
    let text = |name: &str| text_of(answer.body, format!("\"{name}\":\"").as_bytes()).map(str::to_owned);
    let read = || {
        Some(Session {
            user_id: text("id")?,
            access_token: text("accessToken")?,
            refresh_token: text("refreshToken")?,
        })
    };
    read().ok_or_else(|| BenchError::unexpected("a sign-in", answer))
}

/// Adds sessions, each of a user of its own, as copies of one that is there. Users and sessions are both called `name-1` to
/// `name-count`. Whatever columns the tables have, they come along.
pub(crate) async fn copies(postgres: &Postgres, name: &str, count: u32) -> Result<(), BenchError> {
    if count == 0 {
        return Ok(());
    }
    eprintln!("seeding: {count} sessions, copied");
    let mut owner = postgres.owner().await?;
    let own = format!("'id', '{name}-' || n, 'user_id', '{name}-' || n, 'session_id', '{name}-' || n");
    let digest = format!("sha256(convert_to('{name}-' || n, 'UTF8'))");
    for (table, columns) in [
        ("users", format!("{own}, 'email', '{name}-' || n || '@example.com'")),
        ("sessions", format!("{own}, 'cookie_hash', {digest}")),
        ("refresh_chains", format!("{own}, 'seed', {digest}")),
    ] {
        let statement = format!(
            "INSERT INTO auth.{table}
             SELECT copy.* FROM auth.{table} AS pattern, generate_series(1, {count}) AS n,
                 jsonb_populate_record(pattern, jsonb_build_object({columns})) AS copy
             WHERE pattern.ctid = (SELECT ctid FROM auth.{table} LIMIT 1)"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut owner).await?;
    }
    settle(postgres).await
}

/// Writes out what was seeded, which belongs to no measurement.
pub(crate) async fn settle(postgres: &Postgres) -> Result<(), BenchError> {
    let mut owner = postgres.owner().await?;
    for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut owner).await?;
    }
    Ok(())
}
