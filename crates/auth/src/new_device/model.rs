//! Which device is new.

use crate::Auth;
use crate::session::device::Device;
use crate::session::model::Session;
use crate::session::store::OtherSession;
use mana_kernel::opaque_secret;
use time::{Duration, OffsetDateTime};

/// Who signs in to an account without sessions within this time of its making is taken for the one who has made it.
const JUST_MADE: Duration = Duration::hours(1);

/// For how long after its mail a link takes away what asks for more than a mailbox: passkeys, an authenticator app that counts, codes on paper. It
/// takes none that was there for longer, or whoever reads the mailbox one day turned the second factor off.
pub(super) const TAKES_FACTORS_FOR: Duration = Duration::hours(72);

opaque_secret! {
    /// What makes a link "this wasn't me" good, once, for as long as the session is remembered.
    DisownToken, DisownTokenHash, "mnm_"
}

impl DisownToken {
    /// The link.
    pub(super) fn link(&self, auth: &Auth) -> String {
        format!("{}/not-me?token={}", auth.policy.public_url, self.expose())
    }
}

/// Since when factors that a link takes away were added, if it was mailed at `mailed_at`. None if it takes none any more.
pub(super) fn takes_factors_since(mailed_at: OffsetDateTime, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let since = now.saturating_sub(TAKES_FACTORS_FOR);
    (mailed_at > since).then_some(since)
}

/// Whether a session of the same account is taken for that of whoever opened `session`, too: opened since from the same device, which was not
/// announced because the device was known by then; or what happened in it since did not cause a mail with a link, because of how many mails
/// there had been, be it that it was opened from a new device or that something was added in it.
pub(super) fn is_of_stranger(session: &Session, other: &OtherSession) -> bool {
    let is_later = other.created_at >= session.created_at;
    let device = (session.device_id.as_deref(), session.user_agent.as_deref());
    let other_device = (other.device_id.as_deref(), other.user_agent.as_deref());
    let has_added = other.added_at.is_some_and(|added_at| added_at >= session.created_at);
    // A link from before takes away no factor by now.
    let is_untold =
        (has_added && !other.has_link_since) || (is_later && other.is_announced && !other.has_link);
    other.id == session.id.as_str() || is_untold || (is_later && is_of_device(other_device, device))
}

/// Earlier sign-ins of the same user that look the same, as far as that tells which device they came from.
#[derive(Debug, Clone)]
pub(crate) struct EarlierSignIn {
    pub(crate) device_id: Option<String>,
    pub(crate) user_agent: Option<String>,
    /// When the first of them was, of those that the owner has not disowned.
    pub(crate) known_at: Option<OffsetDateTime>,
    /// When the first was of which the owner said that it was somebody else.
    pub(crate) disowned_at: Option<OffsetDateTime>,
}

/// Whether `session` is from a device that none of the `earlier` ones came from.
///
/// The first sign-in of an account that was made at `account_created_at`, just now, is not: its owner has just made it. That
/// there are no earlier sign-ins says nothing of an older account: they may be forgotten, or it may be imported. What the owner
/// has disowned makes no device known, nor does what came from the same device after it.
/// With an id of its own a device is known by that alone; without, by the families of browser and system, or, if both are
/// unknown, by the user agent as it is. All of it is what the client says: a thief who knows it can copy it.
pub(super) fn is_new(
    session: &Session,
    account_created_at: OffsetDateTime,
    earlier: &[EarlierSignIn],
) -> bool {
    let is_first = session.opened_by_app.is_none()
        && earlier.is_empty()
        && session.created_at <= account_created_at.saturating_add(JUST_MADE);
    let (id, user_agent) = (session.device_id.as_deref(), session.user_agent.as_deref());
    let same = || {
        let of = |other: &&EarlierSignIn| {
            is_of_device((id, user_agent), (other.device_id.as_deref(), other.user_agent.as_deref()))
        };
        earlier.iter().filter(of)
    };
    let known_at = same().filter_map(|other| other.known_at).min();
    let disowned_at = same().filter_map(|other| other.disowned_at).min();
    let is_known =
        known_at.is_some_and(|known_at| disowned_at.is_none_or(|disowned_at| known_at < disowned_at));
    !is_first && !is_known
}

/// Whether a sign-in, of such an id and user agent, was not announced because `other` was there: it is taken for one from the same device.
fn is_of_device(
    (id, user_agent): (Option<&str>, Option<&str>),
    (other_id, other_user_agent): (Option<&str>, Option<&str>),
) -> bool {
    match id {
        Some(id) => other_id == Some(id),
        None => look(user_agent) == look(other_user_agent),
    }
}

/// What a device looks like from outside: two families, else the text itself.
fn look(user_agent: Option<&str>) -> (Option<&str>, Option<&str>) {
    let device = user_agent.map(Device::of).unwrap_or_default();
    match (device.browser, device.os) {
        (None, None) => (user_agent, None),
        families => families,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0";
    const NEWER_FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0";
    const FIREFOX_ON_WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; rv:141.0) Gecko/20100101 Firefox/141.0";

    fn session(device_id: Option<&str>, user_agent: Option<&str>) -> Session {
        Session {
            id: "s".parse().unwrap(),
            user_id: "u".parse().unwrap(),
            device_id: device_id.map(str::to_owned),
            device_name: None,
            user_agent: user_agent.map(str::to_owned),
            ip_address: None,
            remember_me: false,
            created_at: OffsetDateTime::UNIX_EPOCH,
            last_activity_at: OffsetDateTime::UNIX_EPOCH,
            expires_at: OffsetDateTime::UNIX_EPOCH,
            opened_by_app: None,
        }
    }

    fn earlier(device_id: Option<&str>, user_agent: Option<&str>) -> EarlierSignIn {
        let (device_id, user_agent) = (device_id.map(str::to_owned), user_agent.map(str::to_owned));
        EarlierSignIn { device_id, user_agent, known_at: Some(MADE), disowned_at: None }
    }

    #[test]
    fn a_device_is_known_by_its_id_else_by_its_families() {
        let known = [earlier(Some("phone-1"), Some(FIREFOX)), earlier(None, Some("MyApp/1"))];
        for (device_id, user_agent, expected) in [
            (Some("phone-1"), Some(FIREFOX_ON_WINDOWS), false),
            (Some("phone-2"), Some(FIREFOX), true),
            (None, Some(FIREFOX), false),
            (None, Some(NEWER_FIREFOX), false),
            (None, Some(FIREFOX_ON_WINDOWS), true),
            (None, Some("MyApp/1"), false),
            (None, Some("MyApp/2"), true),
            (None, Some("Android"), true),
            (None, None, true),
        ] {
            let session = session(device_id, user_agent);
            assert_eq!(is_new(&session, MADE, &known), expected, "{device_id:?} {user_agent:?}");
        }
    }

    fn other(id: &str, seconds: i64) -> OtherSession {
        OtherSession {
            id: id.to_owned(),
            device_id: None,
            user_agent: Some(FIREFOX_ON_WINDOWS.to_owned()),
            authenticated_by: Vec::new(),
            created_at: MADE.saturating_add(Duration::seconds(seconds)),
            added_at: None,
            has_link: false,
            has_link_since: false,
            is_announced: false,
        }
    }

    #[test]
    fn a_stranger_has_what_was_opened_since_from_the_same_device_and_what_no_mail_told_of() {
        let session = session(None, Some(FIREFOX));
        let is_of_stranger = |other: OtherSession| is_of_stranger(&session, &other);
        let same_device =
            |id, seconds| OtherSession { user_agent: Some(NEWER_FIREFOX.to_owned()), ..other(id, seconds) };
        let added = |seconds, at| OtherSession {
            added_at: Some(MADE + Duration::seconds(at)),
            ..other("x", seconds)
        };
        let told = |other| OtherSession { has_link: true, ..other };
        let told_since = |other| OtherSession { has_link_since: true, ..told(other) };
        let announced = |other| OtherSession { is_announced: true, ..other };

        assert!(is_of_stranger(told(other("s", 0))), "itself");
        assert!(!is_of_stranger(other("x", 1)), "another device, known");
        assert!(is_of_stranger(told(same_device("x", 0))) && is_of_stranger(same_device("x", 1)));
        assert!(!is_of_stranger(same_device("x", -1)), "its owner's, perhaps");
        assert!(is_of_stranger(announced(other("x", 1))), "a mail would have told");
        assert!(!is_of_stranger(told(announced(other("x", 1)))), "it has a link of its own");
        assert!(!is_of_stranger(announced(other("x", -1))));
        for seconds in [-1, 1] {
            assert!(is_of_stranger(added(seconds, 2)), "whenever it was opened");
            assert!(is_of_stranger(told(added(seconds, 2))), "its link is from before");
            assert!(!is_of_stranger(told_since(added(seconds, 2))), "it has a link of its own");
        }
        assert!(!is_of_stranger(added(-2, -1)), "before the stranger came");
    }

    #[test]
    fn a_link_takes_factors_for_three_days_and_none_that_is_older() {
        let mailed = |hours| takes_factors_since(MADE - Duration::hours(hours), MADE);
        assert_eq!(mailed(0), Some(MADE - Duration::hours(72)));
        assert_eq!(mailed(71), Some(MADE - Duration::hours(72)));
        assert_eq!(mailed(72), None);
        assert_eq!(mailed(10_000), None);
        assert_eq!(mailed(-1), Some(MADE - Duration::hours(72)), "by a clock that is ahead");
    }

    #[test]
    fn the_first_sign_in_is_not_new_and_a_disowned_one_makes_nothing_known() {
        let first = |made_before| is_new(&session(None, Some(FIREFOX)), MADE - made_before, &[]);
        assert!(!first(Duration::ZERO) && !first(Duration::hours(1)));
        assert!(
            first(Duration::hours(1) + Duration::SECOND),
            "an older account's earlier sign-ins are forgotten"
        );
        let opened_by_app = Some("chat".to_owned());
        let minted = Session { opened_by_app, ..session(Some("app:chat"), Some(FIREFOX)) };
        assert!(is_new(&minted, MADE, &[]), "nobody has made an account by it");
        let disowned = |known_at, disowned_at| {
            let at = |seconds: Option<i64>| seconds.map(|seconds| MADE + Duration::seconds(seconds));
            let (known_at, disowned_at) = (at(known_at), at(disowned_at));
            let earlier = EarlierSignIn { known_at, disowned_at, ..earlier(None, Some(FIREFOX)) };
            is_new(&session(None, Some(NEWER_FIREFOX)), MADE, &[earlier])
        };
        assert!(disowned(None, Some(5)));
        assert!(!disowned(Some(4), Some(5)), "the owner was there before");
        assert!(disowned(Some(6), Some(5)), "the stranger may have been there again");
    }
}
