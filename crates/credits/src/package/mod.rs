//! What is for sale. Owns `credits.packages` and `credits.package_versions`: a change makes a new version, and an order keeps
//! the one that it was sold at.

mod import;
mod list;
mod list_all;
pub mod model;
mod put;
pub(crate) mod store;

pub use import::{import, list_all, seed};

use crate::CreditsState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<CreditsState> {
    OpenApiRouter::new()
        .routes(routes!(list::packages))
        .routes(routes!(list_all::all_packages))
        .routes(routes!(put::put_package))
}
