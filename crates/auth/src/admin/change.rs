//! What can be changed about an account, and the one way in which an administrator and the command line do it.

use super::act::{Act, user_of};
use super::model::{ActRequest, AdminError, AdminUser};
use super::{demote, disable, enable, promote, reset_factors};
use crate::Auth;
use crate::account::store::Account;
use crate::session::end::Ended;
use axum::Json;
use mana_kernel::UserId;
use mana_platform::http::{ApiError, Caller, ClientInfo};
use sqlx::PgConnection;

/// What is changed about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is shut.
    Disable,
    /// It is opened again.
    Enable,
    /// It becomes an administrator's.
    Promote,
    /// It is an administrator's no more.
    Demote,
    /// Its second factor is taken away.
    ResetFactors,
}

impl Change {
    /// Makes the change, in an act's own transaction.
    pub(super) async fn make(
        self,
        connection: &mut PgConnection,
        act: &Act<'_>,
        user: &UserId,
    ) -> Result<(Account, Ended), AdminError> {
        match self {
            Self::Disable => disable::disable(connection, act, user).await,
            Self::Enable => enable::enable(connection, act, user).await,
            Self::Promote => promote::promote(connection, act, user).await,
            Self::Demote => demote::demote(connection, act, user).await,
            Self::ResetFactors => reset_factors::reset_factors(connection, act, user).await,
        }
    }

    /// Makes the change for the administrator who asks, to the user whom the path names.
    pub(super) async fn answer(
        self,
        auth: &Auth,
        admin: &Caller,
        client: &ClientInfo,
        user: &str,
        request: ActRequest,
    ) -> Result<Json<AdminUser>, ApiError> {
        let user = user_of(user)?;
        let act = Act::of_request(auth, admin, client, Some(request.reason.into()));
        let mut transaction = act.begin(&auth.database).await?;
        let (account, ended) = self.make(&mut transaction, &act, &user).await?;
        ended.commit(transaction, auth).await?;
        Ok(Json(AdminUser::of(account)))
    }
}
