//! Why a measurement ended without a result.

use crate::connection::Answer;
use mana_platform::embedded_postgres::EmbeddedPostgresError;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("stopped before the end")]
    Stopped,
    #[error("not done within {0:?}; raise --time-limit-seconds")]
    TimeLimit(Duration),
    #[error("{0} is not there. Build it with `cargo build --release`")]
    NoBinary(PathBuf),
    #[error("{0} ended early with {1}; --log-file FILE keeps what it says")]
    EndedEarly(String, std::process::ExitStatus),
    #[error("{0} did not answer within {1:?}")]
    NotReady(String, Duration),
    #[error("{what} was answered with {status}: {body}")]
    Unexpected { what: String, status: u16, body: String },
    #[error("{0}: none of the answers was the right one: {1}")]
    NothingRight(String, String),
    #[error("a key can't be made or used")]
    Key,
    #[error("a password can't be hashed: {0}")]
    Hash(#[from] argon2::Error),
    #[error("a token can't be made or read: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    #[error("{0} failed: {1}")]
    Program(&'static str, String),
    #[error("{0} does not read as expected")]
    NotUnderstood(&'static str),
    #[error(transparent)]
    Postgres(#[from] EmbeddedPostgresError),
    #[error("PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("a part of the measurement hit a defect: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl BenchError {
    /// An answer that is not the right one.
    pub(crate) fn unexpected(what: impl Into<String>, answer: Answer<'_>) -> Self {
        let body = String::from_utf8_lossy(answer.body).into_owned();
        Self::Unexpected { what: what.into(), status: answer.status, body }
    }
}

impl From<aws_lc_rs::error::Unspecified> for BenchError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Key
    }
}
