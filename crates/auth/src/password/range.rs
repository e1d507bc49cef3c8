//! Asks a service of breached passwords by k-anonymity: it is told five hex digits of the SHA-1 of a password, answers with the
//! rest of all hashes that begin so, and never learns which one was meant. Off unless the operator names a service.

use super::known::sha1;
use mana_platform::outbound::client_builder;
use mana_platform::telemetry::spans;
use std::time::Duration;
use tracing::Instrument as _;
use url::Url;

/// Bytes of an answer at most; a padded one has some 40,000.
const LONGEST_ANSWER: usize = 1 << 20;
/// Hex digits that the service is told.
const TOLD: usize = 5;

/// A way to such a service.
#[derive(Debug)]
pub struct RangeLookup {
    http: reqwest::Client,
    base: Url,
    patience: Duration,
}

/// The setting can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRange {
    /// In clear, or of no server.
    #[error(
        "PASSWORD_RANGE_URL must be an https URL that five hex digits can be added to, as https://range.example/range/"
    )]
    Url,
    /// TLS can't be set up.
    #[error("TLS for PASSWORD_RANGE_URL can't be set up: {0}")]
    Tls(String),
}

/// Why the service gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RangeError {
    #[error("the service did not answer in time")]
    TimeOut,
    #[error("the service answered {0}")]
    Status(http::StatusCode),
    #[error("the answer is too long")]
    TooLong,
    #[error("the service can't be reached: {0}")]
    Http(#[from] reqwest::Error),
}

impl RangeLookup {
    /// A way to the service at `base` that is waited for so long at most.
    ///
    /// # Errors
    /// When `base` is not https, except on this machine.
    pub fn new(base: &Url, patience: Duration) -> Result<Self, InvalidRange> {
        let is_local = matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let is_safe = base.scheme() == "https" || (base.scheme() == "http" && is_local);
        if !is_safe || !base.path().ends_with('/') || base.query().is_some() || base.fragment().is_some() {
            return Err(InvalidRange::Url);
        }
        let tls_error = |error: &dyn std::error::Error| InvalidRange::Tls(error.to_string());
        let http = client_builder()
            .map_err(|error| tls_error(&error))?
            .user_agent(concat!("mana-core-auth/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| tls_error(&error))?;
        Ok(Self { http, base: base.clone(), patience })
    }

    /// Whether the password is known to be breached. When the service can't be asked, the answer is no: it stands behind the
    /// list that is compiled in, which holds whatever becomes of the service, and nobody's registration may depend on a
    /// stranger's server.
    pub(super) async fn contains(&self, password: &str) -> bool {
        let call = spans::call("breached passwords", Some("GET"), self.base.host_str().unwrap_or_default());
        let asked = tokio::time::timeout(self.patience, self.ask(password).instrument(call.clone())).await;
        let asked = asked.unwrap_or(Err(RangeError::TimeOut));
        spans::call_ended(&call, &asked);
        let (is_breached, outcome) = match asked {
            Ok(true) => (true, "breached"),
            Ok(false) => (false, "unknown"),
            Err(error) => {
                let cause: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(
                    cause,
                    "breached passwords can't be looked up; the list that is compiled in holds"
                );
                (false, "failed")
            }
        };
        metrics::counter!("password_range_lookups_total", "outcome" => outcome).increment(1);
        is_breached
    }

    async fn ask(&self, password: &str) -> Result<bool, RangeError> {
        let hash = hex(&sha1(password.as_bytes()));
        let Some((told, kept)) = hash.split_at_checked(TOLD) else { return Ok(false) };
        let mut url = self.base.clone();
        url.set_path(&format!("{}{told}", self.base.path()));
        // Padding keeps the length of the answer from telling which range it is.
        let mut answer = self
            .http
            .get(url)
            .header("add-padding", "true")
            .send()
            .await
            .map_err(reqwest::Error::without_url)?;
        spans::call_answered(answer.status());
        if !answer.status().is_success() {
            return Err(RangeError::Status(answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_ANSWER {
                return Err(RangeError::TooLong);
            }
        }
        Ok(is_listed(&String::from_utf8_lossy(&body), kept))
    }
}

/// Whether a line `REST:COUNT` has the rest of the hash, with a count above zero: padding has zero.
fn is_listed(body: &str, kept: &str) -> bool {
    body.lines().filter_map(|line| line.trim().split_once(':')).any(|(rest, count)| {
        rest.eq_ignore_ascii_case(kept) && count.bytes().any(|digit| (b'1'..=b'9').contains(&digit))
    })
}

/// As published lists write it.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_if_its_count_does() {
        let body =
            "0018A45C4D1DEF81644B54AB7F969B88D65:10\r\n00D4F6E8FA6EECAD2A3AA415EEC418D38EC:0\r\nnonsense\r\n";
        assert!(is_listed(body, "0018A45C4D1DEF81644B54AB7F969B88D65"));
        assert!(!is_listed(body, "00D4F6E8FA6EECAD2A3AA415EEC418D38EC"), "padding");
        assert!(!is_listed(body, "011053FD0102E94D6AE2F8B83D76FAF94F6"));
    }

    #[test]
    fn a_service_in_clear_is_asked_on_this_machine_only() {
        let new = |url: &str| RangeLookup::new(&url.parse().unwrap(), Duration::from_secs(1));
        for good in ["https://range.example/range/", "http://127.0.0.1:9000/range/"] {
            assert!(new(good).is_ok(), "{good}");
        }
        for bad in [
            "http://range.example/range/",
            "https://range.example/range",
            "https://range.example/?x=/",
            "ftp://localhost/",
        ] {
            assert!(new(bad).is_err(), "{bad}");
        }
    }
}
