//! Where a page of ours sends a person on to: a page of the app they came from, or of `FRONTEND_URL`.

use crate::Auth;
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

/// An http or https URL of at most 2048 bytes. Whether a browser may be sent there is another question.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct AppUrl(String);

impl AppUrl {
    /// As it was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AppUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        match Url::parse(&text) {
            Ok(url) if text.len() <= 2048 && matches!(url.scheme(), "http" | "https") && url.has_host() => {
                Ok(Self(text))
            }
            _ => Err("must be an http or https URL"),
        }
    }
}

/// A page, as `/login`, of the app that `app` names, if a browser may be sent there, else of `FRONTEND_URL`. An app that names the page
/// itself is taken at its word.
pub(super) fn page_of_app(auth: &Auth, app: Option<&str>, page: &str, query: &[(&str, &str)]) -> String {
    let base = match app.and_then(|app| auth.redirect_targets.find(app)) {
        Some(mut url) => {
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        None => auth.policy.frontend_url.clone(),
    };
    let base = base.trim_end_matches('/');
    with_query(&format!("{}{page}", base.strip_suffix(page).unwrap_or(base)), query)
}

/// The link of a mail: a path of this service by its own name, whatever name a request came by.
pub(super) fn link(auth: &Auth, path: &str, query: &[(&str, &str)]) -> String {
    with_query(&format!("{}{path}", auth.policy.public_url), query)
}

/// `app=<url>` as a pair of a query, if there is one.
pub(super) fn app_pair<'name, 'app>(
    name: &'name str,
    app: Option<&'app str>,
) -> Vec<(&'name str, &'app str)> {
    app.map(|app| (name, app)).into_iter().collect()
}

fn with_query(url: &str, query: &[(&str, &str)]) -> String {
    if query.is_empty() {
        return url.to_owned();
    }
    let query = Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{url}?{query}")
}
