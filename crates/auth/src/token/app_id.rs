//! Which app a request comes from: each app has its own chain of refresh tokens under a session.

use axum::extract::FromRequestParts;
use http::request::Parts;
use mana_kernel::Line;
use std::convert::Infallible;

/// The app: what it calls itself in `X-App-Id`, else the page's origin, else the nameless one.
///
/// Not a credential. It only keeps one app's rotation from touching another's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppId(String);

impl AppId {
    /// The app of a service key.
    pub(crate) fn of_service(app: &str) -> Self {
        Self(app.to_owned())
    }

    /// As in the database.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AppId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = |name| {
            let text = parts.headers.get(name)?.to_str().ok()?;
            Line::<1, 255>::try_from(text.to_owned()).ok().map(String::from)
        };
        Ok(Self(header("x-app-id").or_else(|| header("origin")).unwrap_or_default()))
    }
}
