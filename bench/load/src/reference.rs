//! Servers to compare with: the product's HTTP stack, one RSA operation per request, and nothing else.

use crate::error::BenchError;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// What an access token of the service looks like: `{"typ":"JWT","alg":"RS256","kid":...}` and nine claims.
pub(crate) const CLAIMS: &str = r#"{"sub":"01a2091f-e5be-7367-92ab-b7bf3d66fb65","email":"somebody@example.com","role":"user","sid":"01a2091f-e611-725a-b010-2ac76fa05492","iss":"manacore","aud":"manacore","iat":1790000000,"exp":4900000000,"jti":"01a2091f-e5c8-7e5f-8d0e-c54e94a7ae86"}"#;
const HEADER: &str = r#"{"typ":"JWT","alg":"RS256","kid":"dJTkOLL0kYtGmwyjYYcYlkNMkBA7M0ZjRBJMwFD6vKc"}"#;

/// Where the server listens.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// TCP port on 127.0.0.1
    #[arg(long)]
    port: u16,
}

struct Keys {
    pair: KeyPair,
    public: ParsedPublicKey,
    unsigned: String,
}

#[derive(Serialize, Deserialize)]
struct Token {
    token: String,
}

#[derive(Serialize)]
struct Verdict {
    valid: bool,
}

/// Serves until it is killed: `POST /sign` answers with a token, `POST /verify` takes one.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(arguments.port))
}

async fn serve(port: u16) -> Result<(), BenchError> {
    let pair = KeyPair::generate(KeySize::Rsa2048)?;
    let public = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref())
        .map_err(|_| BenchError::Key)?;
    let unsigned = format!("{}.{}", BASE64.encode(HEADER), BASE64.encode(CLAIMS));
    let router: Router = Router::new()
        .route("/verify", post(verify))
        .route("/sign", post(sign))
        .with_state(Arc::new(Keys { pair, public, unsigned }))
        .with_state(());
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_mins(10));
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}

async fn verify(State(keys): State<Arc<Keys>>, Json(body): Json<Token>) -> Json<Verdict> {
    let valid = body.token.rsplit_once('.').is_some_and(|(signed, signature)| {
        BASE64
            .decode(signature)
            .is_ok_and(|signature| keys.public.verify_sig(signed.as_bytes(), &signature).is_ok())
    });
    Json(Verdict { valid })
}

async fn sign(State(keys): State<Arc<Keys>>) -> Json<Token> {
    let mut signature = vec![0; keys.pair.public_modulus_len()];
    let message = keys.unsigned.as_bytes();
    let signed = keys.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
    let token = match signed {
        Ok(()) => format!("{}.{}", keys.unsigned, BASE64.encode(&signature)),
        Err(_) => String::new(),
    };
    Json(Token { token })
}
