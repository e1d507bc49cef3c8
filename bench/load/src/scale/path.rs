//! The hot paths, each as a load.

use super::people::People;
use crate::connection::{get_as, post};
use crate::error::BenchError;
use crate::load::{self, Done, Times};
use crate::observed::{self, Observed};
use crate::script::{Register, Repeat, Rotate, Script, Spend};
use crate::seed;
use crate::stage::Stage;
use crate::tally::Tally;
use std::net::SocketAddr;

/// What people do most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Register,
    Login,
    Refresh,
    Validate,
    Spend,
    Balance,
    Transactions,
    Sessions,
    SecurityEvents,
}

impl Path {
    /// In an order in which no path changes what a later one reads: sign-ins add sessions and events.
    pub(super) const ALL: [Self; 9] = [
        Self::Validate,
        Self::Balance,
        Self::Transactions,
        Self::Sessions,
        Self::SecurityEvents,
        Self::Refresh,
        Self::Spend,
        Self::Login,
        Self::Register,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Login => "sign-in",
            Self::Refresh => "refresh",
            Self::Validate => "validate",
            Self::Spend => "spend",
            Self::Balance => "balance",
            Self::Transactions => "a page of transactions",
            Self::Sessions => "the list of sessions",
            Self::SecurityEvents => "the list of security events",
        }
    }

    /// Runs it over `connections`, which `servers` get in turn, and looks on.
    pub(super) async fn run(
        self,
        stage: &Stage,
        servers: &[SocketAddr],
        people: &People,
        connections: usize,
        times: Times,
    ) -> Result<(Tally, Observed), BenchError> {
        match self {
            Self::Register => {
                let scripts = Register::share(connections, &people.addresses);
                self.finish(run(stage, servers, scripts, times).await?)
            }
            Self::Login => {
                let requests = (0..people.registered).map(seed::login_request).collect();
                let scripts = Repeat::share(requests, connections, br#""refreshToken":"mrt_"#);
                self.finish(run(stage, servers, scripts, times).await?)
            }
            Self::Refresh => {
                let tokens = people.refresh_tokens.take();
                let (Done { tally, scripts }, observed) =
                    run(stage, servers, Rotate::share(tokens, connections), times).await?;
                people.refresh_tokens.replace(scripts.into_iter().flat_map(Rotate::into_tokens).collect());
                Ok((tally.checked(self.name())?, observed))
            }
            Self::Validate => {
                let body =
                    |token: &String| post("/api/v1/auth/validate", &format!(r#"{{"token":"{token}"}}"#));
                let requests = people.access_tokens.iter().map(body).collect();
                let scripts = Repeat::share(requests, connections, br#"{"valid":true"#);
                self.finish(run(stage, servers, scripts, times).await?)
            }
            Self::Spend => {
                let scripts = Spend::share(people.wallet_tokens.clone(), connections, &people.keys);
                self.finish(run(stage, servers, scripts, times).await?)
            }
            Self::Balance => {
                self.read(&people.wallet_tokens, "/api/v1/credits/balance", br#""freeCreditsRemaining":"#)
                    .run(stage, servers, connections, times)
                    .await
            }
            Self::Transactions => {
                self.read(
                    &people.wallet_tokens,
                    "/api/v1/credits/transactions?limit=50",
                    br#""balanceAfter":"#,
                )
                .run(stage, servers, connections, times)
                .await
            }
            Self::Sessions => {
                self.read(&people.access_tokens, "/api/v1/auth/sessions", br#""id":""#)
                    .run(stage, servers, connections, times)
                    .await
            }
            Self::SecurityEvents => {
                self.read(&people.access_tokens, "/api/v1/auth/security-events", br#""signed_in""#)
                    .run(stage, servers, connections, times)
                    .await
            }
        }
    }

    fn read(self, tokens: &[String], address: &str, proof: &'static [u8]) -> Read {
        Read { path: self, requests: tokens.iter().map(|token| get_as(token, address)).collect(), proof }
    }

    fn finish<S>(self, (done, observed): (Done<S>, Observed)) -> Result<(Tally, Observed), BenchError> {
        Ok((done.tally.checked(self.name())?, observed))
    }
}

/// A path that changes nothing.
struct Read {
    path: Path,
    requests: Vec<Vec<u8>>,
    proof: &'static [u8],
}

impl Read {
    async fn run(
        self,
        stage: &Stage,
        servers: &[SocketAddr],
        connections: usize,
        times: Times,
    ) -> Result<(Tally, Observed), BenchError> {
        let scripts = Repeat::share(self.requests, connections, self.proof);
        self.path.finish(run(stage, servers, scripts, times).await?)
    }
}

async fn run<S: Script>(
    stage: &Stage,
    servers: &[SocketAddr],
    scripts: Vec<S>,
    times: Times,
) -> Result<(Done<S>, Observed), BenchError> {
    observed::during(stage, times, load::closed_over(servers, scripts, times)).await
}
