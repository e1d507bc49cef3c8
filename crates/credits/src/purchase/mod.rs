//! What was bought. Owns `credits.purchases`.

mod list;
pub(crate) mod store;

use crate::CreditsState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<CreditsState> {
    OpenApiRouter::new().routes(routes!(list::purchases))
}
