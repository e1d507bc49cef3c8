//! What every way of signing in ends with: a session on a device, its cookie, and the events that tell of it; or the question for a
//! second factor.

use super::cookie;
use super::end::Ended;
use super::model::{RevokeReason, Session, SessionCookie, SessionError};
use super::proof::Proof;
use super::store;
use crate::account::model::User;
use crate::mail::Written;
use crate::security_event::{self, EventKind, Origin};
use crate::two_factor::{self, Challenge};
use crate::{Auth, account, new_device};
use http::{HeaderMap, HeaderValue};
use mana_kernel::{Line, SessionId};
use mana_platform::DbError;
use mana_platform::db::Transaction;
use mana_platform::http::{ClientInfo, Language};
use sqlx::PgConnection;

/// Characters of a device's name that are kept.
const NAME_LENGTH: usize = 128;

/// Where a session is opened.
pub(crate) struct Device<'a> {
    /// The device's own id, to recognise it next time.
    pub(crate) id: Option<Line<0, 512>>,
    /// Its name, to show in the list of devices.
    pub(crate) name: Option<Line<0, 512>>,
    pub(crate) client: ClientInfo,
    /// Of the request: they may show that the browser is trusted.
    pub(crate) headers: &'a HeaderMap,
    /// Of the person, for the mail that may tell of it.
    pub(crate) language: Language,
    /// Keeps the session for longer.
    pub(crate) remember_me: bool,
}

/// A session that was opened, if the transaction commits.
pub(crate) struct Opened {
    /// As the account is now: what was known of it before may have changed.
    pub(crate) user: User,
    pub(crate) session: Session,
    pub(super) cookie: SessionCookie,
    /// To be held until after the commit: it wakes whoever sends the mail.
    pub(super) mail: Written,
    /// What ended to make room for it: commit by this.
    pub(super) ended: Ended,
}

impl Opened {
    /// Commits, with what else ended, wakes whoever sends the mail, and gives the user and the session with what sets its cookie.
    pub(crate) async fn commit(
        self,
        transaction: Transaction,
        auth: &Auth,
        others: Ended,
    ) -> Result<(User, Session, Option<HeaderValue>), DbError> {
        let Self { user, session, cookie, mail, ended } = self;
        ended.and(others).commit(transaction, auth).await?;
        drop(mail);
        Ok((user, session, cookie::set(&cookie, &auth.policy)))
    }
}

/// Where a sign-in stands once its credentials were right.
#[must_use = "a challenge must be committed as well as a session"]
pub(crate) enum Admission {
    /// It is done.
    Opened(Box<Opened>),
    /// A second factor is needed; what is proven so far opens nothing.
    Challenged(Challenge),
}

/// Lets a user in who has proven to be it by `proof`, or asks for the second factor that the user or the installation's policy wants and
/// the proof lacks. Every way to sign in ends here, so that none goes round it; nor round the proof of the address, if that is asked for.
///
/// `user` is as the proof found it. The account is locked before anything is decided, and is looked at again: whoever changes what opens
/// it has done so by then, and is seen, or waits and sees what is opened here.
pub(crate) async fn admit(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    proof: Proof,
    device: Device<'_>,
    origin: &Origin,
) -> Result<Admission, SessionError> {
    let proven_at = user.ways_in_epoch;
    let user = account::store::lock_user(connection, &user.id).await?;
    let user = user.ok_or(SessionError::AccountDisabled)?;
    if user.ways_in_epoch != proven_at {
        return Err(SessionError::InvalidCredentials);
    }
    if auth.policy.require_email_verification && !user.email_verified {
        return Err(SessionError::EmailNotVerified);
    }
    match two_factor::judge(connection, auth, &user, proof, &device).await? {
        two_factor::Judgement::Enough(proof) => {
            let opened = open_session(connection, auth, user, &proof, device, origin).await?;
            Ok(Admission::Opened(Box::new(opened)))
        }
        two_factor::Judgement::Lacking(challenge) => Ok(Admission::Challenged(challenge)),
    }
}

/// A device's name as lists show it: of a long one the beginning.
pub(super) fn shown_name(name: &str) -> String {
    if name.chars().count() <= NAME_LENGTH {
        return name.to_owned();
    }
    let beginning: String = name.chars().take(NAME_LENGTH.saturating_sub(1)).collect();
    format!("{beginning}…")
}

/// Opens a session with a cookie of its own: whatever cookie the browser brought is not taken over. Ends the sessions beyond the limit.
async fn open_session(
    connection: &mut PgConnection,
    auth: &Auth,
    user: User,
    proof: &Proof,
    device: Device<'_>,
    origin: &Origin,
) -> Result<Opened, SessionError> {
    let now = auth.clock.now();
    let cookie = SessionCookie::generate(&*auth.rng);
    let session = Session {
        id: SessionId::new(&*auth.clock, &*auth.rng),
        user_id: user.id.clone(),
        device_id: device.id.map(String::from).filter(|id| !id.is_empty()),
        device_name: device.name.as_ref().map(Line::as_str).filter(|name| !name.is_empty()).map(shown_name),
        user_agent: device.client.user_agent,
        ip_address: device.client.ip_address.map(|address| address.to_string()),
        remember_me: device.remember_me,
        created_at: now,
        last_activity_at: now,
        expires_at: auth.policy.session_end(now, now, device.remember_me),
        opened_by_app: None,
    };
    store::insert_session(connection, &session, cookie.hash(), proof).await?;
    let ended = end_surplus(connection, auth, &session, auth.policy.sessions_per_user, origin).await?;
    let (user_id, id) = (Some(&user.id), Some(&session.id));
    security_event::record(connection, auth, EventKind::SignedIn, user_id, id, origin).await?;
    let language = device.language;
    let mail = new_device::announce_if_new(connection, auth, &user, &session, language, origin).await?;
    Ok(Opened { user, session, cookie, mail, ended })
}

/// Ends the user's sessions of the same sort that are beyond the limit with the new one.
pub(super) async fn end_surplus(
    connection: &mut PgConnection,
    auth: &Auth,
    newest: &Session,
    limit: u32,
    origin: &Origin,
) -> Result<Ended, DbError> {
    let (user, limit) = (&newest.user_id, i64::from(limit));
    let ended = store::update_revoked_beyond(connection, user, newest, limit, auth.clock.now()).await?;
    let kind = EventKind::of_end(RevokeReason::TooMany);
    let tools = (&*auth.clock, &*auth.rng);
    security_event::record_each_by(connection, tools, kind, user, &ended, origin).await?;
    Ok(Ended::of(ended.len()))
}
