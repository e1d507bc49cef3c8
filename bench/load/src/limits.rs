//! The limits of the machine: what no service could pass here, measured in the same run.

use crate::connection::post;
use crate::error::BenchError;
use crate::load::{self, Times};
use crate::postgres::Postgres;
use crate::processors::processors;
use crate::reference::CLAIMS;
use crate::report::{self, LATENCIES, head, row, whole};
use crate::script::{Repeat, text_of};
use crate::stage::Process;
use crate::tally::{Tally, per_second};
use argon2::Argon2;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use sqlx::{Connection as _, PgConnection};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Connections on which durable updates are measured.
const UPDATE_CONNECTIONS: [usize; 4] = [1, 4, 16, 64];

/// Does `work` on every processor for a while, and says how often a second and processor.
async fn per_processor<E: Into<BenchError> + Send + 'static>(
    time: Duration,
    work: impl Fn() -> Result<(), E> + Send + Sync + 'static,
) -> Result<f64, BenchError> {
    let (work, done) = (Arc::new(work), Arc::new(AtomicU64::new(0)));
    let mut threads = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..processors() {
        let (work, done) = (Arc::clone(&work), Arc::clone(&done));
        threads.spawn_blocking(move || {
            while begun.elapsed() < time {
                work()?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, E>(())
        });
    }
    while let Some(ended) = threads.join_next().await {
        ended?.map_err(Into::into)?;
    }
    Ok(per_second(done.load(Ordering::Relaxed), begun.elapsed()) / crate::tally::as_number(processors()))
}

/// What a processor does in a second, all of them busy with the same.
#[derive(Debug)]
pub(crate) struct Bare {
    pub(crate) signatures: f64,
    pub(crate) verifications: f64,
    /// The same through the JWT library as it is called per token.
    pub(crate) library_signatures: f64,
    pub(crate) library_verifications: f64,
}

/// Argon2id as passwords are hashed (19 MiB, two passes, one lane): hashes a second and processor. Measured apart, just
/// before what is compared with it.
pub(crate) async fn argon2id(time: Duration) -> Result<f64, BenchError> {
    let hash = || {
        let mut tag = [0; 32];
        Argon2::default().hash_password_into(b"correct horse battery", b"sixteen bytes ..", &mut tag)
    };
    per_processor(time, hash).await
}

pub(crate) async fn bare(time: Duration) -> Result<Bare, BenchError> {
    let pair = Arc::new(KeyPair::generate(KeySize::Rsa2048)?);
    let public = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref())
        .map_err(|_| BenchError::Key)?;
    let encoding = EncodingKey::from_rsa_pem(pem_of(&pair)?.as_bytes())?;
    let decoding = DecodingKey::from_rsa_der(pair.public_key().as_ref());
    let claims: serde_json::Value = serde_json::from_str(CLAIMS).unwrap_or_default();
    let token = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &encoding)?;
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["manacore"]);

    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), CLAIMS.as_bytes(), &mut signature)?;
    let signer = Arc::clone(&pair);
    let sign = move || {
        let mut signature = [0; 256];
        signer.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), CLAIMS.as_bytes(), &mut signature)
    };
    let verify = move || public.verify_sig(CLAIMS.as_bytes(), &signature);
    let encode = move || jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &encoding).map(|_| ());
    let decode =
        move || jsonwebtoken::decode::<serde_json::Value>(&token, &decoding, &validation).map(|_| ());
    Ok(Bare {
        signatures: per_processor(time, sign).await?,
        verifications: per_processor(time, verify).await?,
        library_signatures: per_processor(time, encode).await?,
        library_verifications: per_processor(time, decode).await?,
    })
}

/// A private key as environments give it.
pub(crate) fn pem_of(pair: &KeyPair) -> Result<String, BenchError> {
    let der: Pkcs8V1Der<'_> = pair.as_der()?;
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(der.as_ref())))
}

/// Right answers of the two servers that do one RSA operation per request.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) verify: Tally,
    pub(crate) sign: Tally,
}

pub(crate) async fn reference(connections: usize, times: Times) -> Result<Reference, BenchError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("reference").env_clear();
    let server = Process::start("the reference server", command, "--port", "/dev/null".as_ref())?;
    let sign = post("/sign", "{}");
    server.await_answer(&sign).await?;
    let mut connection = crate::connection::Connection::open(server.address).await?;
    let answer = connection.exchange(&sign).await?;
    let token = text_of(answer.body, b"\"token\":\"").unwrap_or_default();
    let verify = post("/verify", &format!(r#"{{"token":"{token}"}}"#));
    let run = async |request: Vec<u8>, proof| {
        let scripts = Repeat::share(vec![request], connections, proof);
        load::closed(server.address, scripts, times).await
    };
    Ok(Reference {
        verify: run(verify, br#""valid":true"#).await?.tally.checked("the reference of a verification")?,
        sign: run(sign, br#""token":"ey"#).await?.tally.checked("the reference of a signature")?,
    })
}

/// Durable commits a second: one row of many updated per transaction, on each of `connections`.
pub(crate) async fn durable_updates(
    postgres: &Postgres,
    connections: usize,
    times: Times,
) -> Result<Tally, BenchError> {
    let mut owner = postgres.owner().await?;
    sqlx::raw_sql(
        "CREATE SCHEMA IF NOT EXISTS bench;
         CREATE TABLE IF NOT EXISTS bench.counters (id bigint PRIMARY KEY, number bigint NOT NULL) WITH (fillfactor = 80);
         INSERT INTO bench.counters SELECT n, 0 FROM generate_series(0, 9999) AS n ON CONFLICT DO NOTHING;",
    )
    .execute(&mut owner)
    .await?;
    let from = Instant::now() + times.warm_up;
    let end = from + times.measured;
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let options = postgres.owner_options();
        tasks.spawn(async move {
            let mut connection = PgConnection::connect_with(&options).await?;
            let mut tally = Tally::over(from, times.measured)?;
            // Connections never meet on a row.
            let mut row = i64::try_from(number).unwrap_or_default();
            while Instant::now() < end {
                let begun = Instant::now();
                sqlx::query("UPDATE bench.counters SET number = number + 1 WHERE id = $1")
                    .bind(row)
                    .execute(&mut connection)
                    .await?;
                let now = Instant::now();
                tally.count(now, now - begun, crate::tally::Outcome::Right);
                row = (row + 100) % 10_000;
            }
            connection.close().await?;
            Ok::<_, BenchError>(tally)
        });
    }
    let mut sum = Tally::over(from, times.measured)?;
    while let Some(tally) = tasks.join_next().await {
        sum.add(tally??)?;
    }
    sum.checked("durable updates")
}

/// Prints the limits next to those of the machine on which the targets were set.
pub(crate) fn print(bare: &Bare, argon2id: f64, reference: Option<&Reference>) {
    head("Limits of the machine", &["limit", "asked", "seen"]);
    row(&["Argon2id (19 MiB, t=2, p=1), a core", "67/s", &format!("{argon2id:.1}/s")]);
    row(&["RS256 signatures, a core", "3,600/s", &format!("{}/s", whole(bare.signatures))]);
    row(&["the same through jsonwebtoken", "", &format!("{}/s", whole(bare.library_signatures))]);
    row(&["RS256 verifications, a core", "", &format!("{}/s", whole(bare.verifications))]);
    row(&["the same through jsonwebtoken", "", &format!("{}/s", whole(bare.library_verifications))]);
    if let Some(reference) = reference {
        let seen = |tally: &Tally| format!("{}/s, p99 {:.2} ms", whole(tally.rate()), tally.millis_at(0.99));
        row(&["HTTP with an RS256 verification", "51,000/s", &seen(&reference.verify)]);
        row(&["HTTP with an RS256 signature", "6,400/s", &seen(&reference.sign)]);
    }
}

/// Measures and prints what the database commits when each transaction updates one row.
pub(crate) async fn measure_updates(postgres: &Postgres, times: Times) -> Result<(), BenchError> {
    head("Durable updates of one row", &[&["connections"], &LATENCIES[..]].concat());
    let times = Times { measured: times.measured / 2, ..times };
    for connections in UPDATE_CONNECTIONS {
        eprintln!("measuring: durable updates on {connections} connections");
        let tally = durable_updates(postgres, connections, times).await?;
        row(&[vec![connections.to_string()], report::latencies(&tally)].concat());
    }
    Ok(())
}
