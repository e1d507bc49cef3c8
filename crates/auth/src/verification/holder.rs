//! How whoever follows a mailed link can show that they hold the account, and not only the mailbox: who asked for the mail may be a stranger, who
//! waits for the owner of the mailbox to make it good.

use crate::account::model::User;
use crate::session::cookie;
use crate::{Auth, password};
use http::HeaderMap;
use mana_platform::DbError;
use mana_platform::http::{AddressBucket, ClientInfo};
use sqlx::PgConnection;

/// What shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Being here: the browser is signed in to it, from where it has signed in, or the mail was asked for from here.
    Here,
    /// Its password.
    Password,
    /// Nothing: it has no password.
    Nobody,
}

/// What shows it in this request. `asked_from` is the address that an owner who was signed in asked for the mail from, if one did.
///
/// A cookie alone is not enough: whoever can plant one for the family's domain signs the browser in to an account of theirs. They would have to
/// have signed in, or asked, from the address of whom they mean to deceive.
pub(super) async fn find_holder(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    (client, headers): (&ClientInfo, &HeaderMap),
    asked_from: Option<&str>,
) -> Result<Holder, DbError> {
    let is_from_here = |address: &str| {
        let address = address.parse().ok().filter(|_| client.ip_address.is_some());
        address.is_some_and(|address| AddressBucket::of(Some(address)) == client.bucket())
    };
    if asked_from.is_some_and(is_from_here) {
        return Ok(Holder::Here);
    }
    let signed_in = cookie::list_signed_in_to(connection, auth, headers, &user.id).await?;
    if signed_in.iter().any(|session| session.ip_address.as_deref().is_some_and(is_from_here)) {
        return Ok(Holder::Here);
    }
    if password::store::exists_password(connection, &user.id).await? {
        Ok(Holder::Password)
    } else {
        Ok(Holder::Nobody)
    }
}
