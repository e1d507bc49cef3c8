//! What an endpoint is, what it is told of, and when it is told again.

use crate::admin::model::AdminError;
use crate::token::root_secret::RootSecretError;
use mana_kernel::{Amount, ErrorCode, Kind, Line, Problem, Rng, opaque_secret};
use mana_platform::DbError;
use mana_platform::http::codes;
use serde::{Deserialize, Serialize, Serializer};
use time::{Duration, OffsetDateTime};
use url::Url;
use utoipa::ToSchema;
use uuid::Uuid;

opaque_secret! {
    /// What deliveries to an endpoint are signed with. Both sides need it in clear: its stored twin is not the hash, but itself, sealed.
    WebhookSecret, WebhookSecretHash, "mana_whsec_"
}

/// The app that an endpoint belongs to.
pub type AppName = Line<1, 128>;

/// Endpoints of an app at most: each event is written down for every one of them.
pub(super) const ENDPOINTS_OF_AN_APP: i64 = 10;
/// Events that are kept to be told again.
pub(crate) const KEEP: Duration = Duration::days(30);
/// Whoever claims an endpoint has it to itself for this long: more than its answers may take.
pub(super) const LEASE: Duration = Duration::minutes(2);
/// How long one pass begins to tell what is due.
pub(super) const TURN: std::time::Duration = std::time::Duration::from_mins(20);
/// Deliveries to an endpoint that are under way together.
pub(super) const BATCH: i64 = 8;
/// Attempts at a delivery before it is given up: by [`next_attempt`], within some three days.
pub(super) const MAX_ATTEMPTS: i32 = 22;
/// An endpoint at which nothing got through for so long is told nothing more.
const DISABLED_AFTER: Duration = Duration::days(3);
const FIRST_PAUSE: Duration = Duration::seconds(15);
const LONGEST_PAUSE: Duration = Duration::hours(6);
const LONGEST_REST: Duration = Duration::hours(1);

/// What an app may hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum EventType {
    /// A user spent mana in the app.
    #[serde(rename = "credits.spent")]
    CreditsSpent,
    /// A balance fell below what its owner wants to be told of.
    #[serde(rename = "credits.low")]
    CreditsLow,
    /// Mana that was bought is in the wallet.
    #[serde(rename = "purchase.completed")]
    PurchaseCompleted,
    /// An account is gone.
    #[serde(rename = "user.deleted")]
    UserDeleted,
    /// A session ended before its time.
    #[serde(rename = "session.revoked")]
    SessionRevoked,
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::CreditsSpent,
        Self::CreditsLow,
        Self::PurchaseCompleted,
        Self::UserDeleted,
        Self::SessionRevoked,
    ];

    /// As in the database, the API and deliveries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreditsSpent => "credits.spent",
            Self::CreditsLow => "credits.low",
            Self::PurchaseCompleted => "purchase.completed",
            Self::UserDeleted => "user.deleted",
            Self::SessionRevoked => "session.revoked",
        }
    }
}

/// Not what an app may hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be credits.spent, credits.low, purchase.completed, user.deleted or session.revoked")]
pub struct UnknownEvent;

impl std::str::FromStr for EventType {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, UnknownEvent> {
        Self::ALL.into_iter().find(|event| event.as_str() == text).ok_or(UnknownEvent)
    }
}

/// Some of them, each once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<EventType>")]
pub struct SomeEvents(Vec<EventType>);

/// Nothing to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to 5 events")]
pub struct NoEvents;

impl TryFrom<Vec<EventType>> for SomeEvents {
    type Error = NoEvents;

    fn try_from(mut events: Vec<EventType>) -> Result<Self, NoEvents> {
        if events.is_empty() || events.len() > EventType::ALL.len() {
            return Err(NoEvents);
        }
        events.sort_unstable();
        events.dedup();
        Ok(Self(events))
    }
}

impl SomeEvents {
    /// The events, in order.
    pub fn events(&self) -> &[EventType] {
        &self.0
    }
}

/// An endpoint that is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewWebhook {
    /// Where it is: https, and of the public internet.
    pub url: Line<1, 2048>,
    /// What it hears of.
    #[schema(value_type = Vec<EventType>, min_items = 1, max_items = 5)]
    pub events: SomeEvents,
    /// The smallest spend that `credits.spent` tells of; 1 if absent.
    pub spent_from: Option<Amount>,
}

/// An endpoint as administrators see it. Not its secret: that is told once.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookDetails {
    /// Its id.
    pub id: Uuid,
    /// The app that it belongs to.
    #[schema(min_length = 1, max_length = 128)]
    pub app_id: String,
    /// Where it is.
    #[schema(min_length = 1, max_length = 2048)]
    pub url: String,
    /// What it hears of.
    #[schema(min_items = 1, max_items = 5)]
    pub events: Vec<EventType>,
    /// The smallest spend that it hears of.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub spent_from: i64,
    /// When it was added.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The administrator who added it; null if it was added at the command line.
    #[schema(min_length = 1, max_length = 64)]
    pub created_by: Option<String>,
    /// When something last got through.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_success_at: Option<OffsetDateTime>,
    /// Since when nothing gets through; null if the last attempts were good.
    #[serde(with = "time::serde::rfc3339::option")]
    pub failing_since: Option<OffsetDateTime>,
    /// What went wrong last.
    #[schema(max_length = 300)]
    pub last_error: Option<String>,
    /// Since when it is told nothing, because nothing got through for three days; null if it is.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    /// Deliveries that wait; not counted beyond 10,000.
    #[schema(minimum = 0, maximum = 10_000)]
    pub waiting: i64,
    /// Deliveries that were given up; not counted beyond 10,000.
    #[schema(minimum = 0, maximum = 10_000)]
    pub dead: i64,
}

/// An endpoint that was just added.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedWebhook {
    /// What its deliveries are signed with. It is told this once.
    #[schema(value_type = String, min_length = 20, max_length = 128)]
    #[serde(serialize_with = "in_clear")]
    pub secret: WebhookSecret,
    /// About it.
    #[serde(flatten)]
    pub details: WebhookDetails,
}

/// A secret that follows another.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotatedWebhookSecret {
    /// What deliveries are signed with from now on. It is told this once.
    #[schema(value_type = String, min_length = 20, max_length = 128)]
    #[serde(serialize_with = "in_clear")]
    pub secret: WebhookSecret,
    /// Until when they are signed with the one before as well.
    #[serde(with = "time::serde::rfc3339")]
    pub old_expires_at: OffsetDateTime,
}

fn in_clear<S: Serializer>(secret: &WebhookSecret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// What became of telling an endpoint of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It is to be told, or told again.
    Waiting,
    /// It was told, and took it.
    Delivered,
    /// It was given up.
    Dead,
}

impl DeliveryState {
    /// As in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub(super) fn from_database(text: &str) -> Option<Self> {
        [Self::Waiting, Self::Delivered, Self::Dead].into_iter().find(|state| state.as_str() == text)
    }
}

/// What a path names: an app, and an endpoint. What is no id is nobody's.
pub(super) fn endpoint_of(app: String, id: &str) -> Result<(AppName, Uuid), WebhookError> {
    let app = AppName::try_from(app).map_err(|_| WebhookError::NotFound)?;
    Ok((app, Uuid::parse_str(id).map_err(|_| WebhookError::NotFound)?))
}

/// Where an endpoint may be, as far as can be seen before its name is resolved.
pub(super) fn read_url(text: &str, may_reach: impl Fn(&Url) -> bool) -> Result<Url, WebhookError> {
    Url::parse(text).ok().filter(may_reach).ok_or(WebhookError::OutOfReach)
}

/// When to try again after `attempts` that failed, the last of them now; none when it has been often enough.
pub(super) fn next_attempt(attempts: i32, now: OffsetDateTime, rng: &dyn Rng) -> Option<OffsetDateTime> {
    (attempts < MAX_ATTEMPTS).then(|| now.saturating_add(pause(attempts, LONGEST_PAUSE, rng)))
}

/// How long an endpoint at which nothing gets through is left alone.
pub(super) fn rest(failures: i32, rng: &dyn Rng) -> Duration {
    pause(failures, LONGEST_REST, rng)
}

/// Whether an endpoint has failed for long enough.
pub(super) fn is_hopeless(failing_since: OffsetDateTime, now: OffsetDateTime) -> bool {
    now >= failing_since.saturating_add(DISABLED_AFTER)
}

/// 15 s, 30 s, 1 min … up to `longest`, and up to a fifth less or more, so that what failed together does not come back together.
fn pause(failures: i32, longest: Duration, rng: &dyn Rng) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(0).min(16);
    let pause = FIRST_PAUSE.saturating_mul(2_i32.saturating_pow(doublings)).min(longest);
    let mut random = [0; 2];
    rng.fill(&mut random);
    let millis = i64::try_from(pause.whole_milliseconds()).unwrap_or(i64::MAX);
    let share = i64::from(u16::from_be_bytes(random));
    // Four fifths, and two fifths of a random part.
    let fixed = millis.saturating_mul(4).checked_div(5).unwrap_or(millis);
    let spread = millis.saturating_mul(2).checked_div(5).unwrap_or(0);
    let extra = spread.saturating_mul(share).checked_div(i64::from(u16::MAX)).unwrap_or(0);
    Duration::milliseconds(fixed.saturating_add(extra))
}

/// What may go wrong with an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The app has no such endpoint.
    #[error("the app has no such endpoint")]
    NotFound,
    /// Nothing may be sent there.
    #[error(
        "the URL is not https, or of no public address: WEBHOOK_PRIVATE_NETWORKS names others that may be reached"
    )]
    OutOfReach,
    /// As many as an app may have.
    #[error("the app has {ENDPOINTS_OF_AN_APP} endpoints already: remove one first")]
    TooMany,
    /// Neither events nor a time were named, or both.
    #[error("name events, or from when on and until when")]
    NothingNamed,
    /// Its secret can't be sealed.
    #[error(transparent)]
    Seal(#[from] RootSecretError),
    /// Whoever asks may not, any more.
    #[error(transparent)]
    Act(#[from] AdminError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// No such endpoint.
pub static WEBHOOK_NOT_FOUND: ErrorCode = ErrorCode {
    code: "webhook.not_found",
    kind: Kind::NotFound,
    title: "The app has no such endpoint",
    word: None,
    way_out: "Take the id from GET /api/v1/admin/apps/{appId}/webhooks, of the same app.",
};
/// Nothing may be sent there.
pub static WEBHOOK_URL_REFUSED: ErrorCode = ErrorCode {
    code: "webhook.url_refused",
    kind: Kind::Invalid,
    title: "Nothing may be sent to this URL",
    word: None,
    way_out: "An endpoint is https, without name and password, and of the public internet. The operator may name other networks in WEBHOOK_PRIVATE_NETWORKS.",
};
/// As many as there may be.
pub static TOO_MANY_WEBHOOKS: ErrorCode = ErrorCode {
    code: "webhook.too_many",
    kind: Kind::Conflict,
    title: "The app has as many endpoints as it may have",
    word: None,
    way_out: "Remove one that is not needed any more.",
};
/// What is to be told again is not named.
pub static NOTHING_TO_REPLAY: ErrorCode = ErrorCode {
    code: "webhook.nothing_named",
    kind: Kind::Invalid,
    title: "It is not said what is to be told again",
    word: None,
    way_out: "Name events in `eventIds`, or a time by `from` and `to`, and not both.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] =
    &[&WEBHOOK_NOT_FOUND, &WEBHOOK_URL_REFUSED, &TOO_MANY_WEBHOOKS, &NOTHING_TO_REPLAY];

impl Problem for WebhookError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::NotFound => &WEBHOOK_NOT_FOUND,
            Self::OutOfReach => &WEBHOOK_URL_REFUSED,
            Self::TooMany => &TOO_MANY_WEBHOOKS,
            Self::NothingNamed => &NOTHING_TO_REPLAY,
            Self::Seal(_) => &codes::INTERNAL,
            Self::Act(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers; an overflow would fail the test")]
mod tests {
    use super::*;
    use mana_kernel::Rng;
    use proptest::prelude::*;

    #[derive(Debug)]
    struct Always(u8);

    impl Rng for Always {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn attempts_are_ever_farther_apart_and_end_after_some_three_days() {
        let start = OffsetDateTime::UNIX_EPOCH;
        for (random, from, to) in [(0, 50, 60), (127, 65, 73), (255, 78, 86)] {
            let (mut now, mut attempts) = (start, 0);
            while let Some(next) = next_attempt(attempts + 1, now, &Always(random)) {
                attempts += 1;
                assert!(next > now);
                now = next;
            }
            let hours = (now - start).whole_hours();
            assert!((from..to).contains(&hours), "{hours}");
        }
    }

    #[test]
    fn an_endpoint_that_fails_is_asked_at_least_once_in_some_hour_and_left_alone_after_three_days() {
        assert_eq!(rest(1, &Always(0)), Duration::seconds(12));
        assert_eq!(rest(1, &Always(255)), Duration::seconds(18));
        assert!(rest(1_000, &Always(255)) <= Duration::minutes(72));
        let start = OffsetDateTime::UNIX_EPOCH;
        assert!(!is_hopeless(start, start + Duration::hours(71)));
        assert!(is_hopeless(start, start + Duration::days(3)));
    }

    proptest! {
        #[test]
        fn a_pause_is_within_a_fifth_of_what_it_should_be(failures in 1_i32..40, random: u8) {
            let middle = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE);
            let pause = pause(failures, LONGEST_PAUSE, &Always(random));
            prop_assert!(pause >= middle * 4 / 5 && pause <= middle * 6 / 5, "{pause} {middle}");
        }
    }
}
