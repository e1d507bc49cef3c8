//! Packages of the older service, with what they once were sold as: an order names what it was sold as for ever.

use super::model::OldOrder;
use super::store;
use crate::ledger::Metadata;
use crate::package::model::{Cents, PackageContent, PackageError, PackageId, Prices};
use crate::package::store as packages;
use mana_kernel::{Amount, Line, Paragraph};
use serde::Deserialize;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};
use time::OffsetDateTime;

/// A package.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldPackage {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// More about it.
    #[serde(default)]
    pub description: Option<String>,
    /// Mana in it.
    pub credits: i64,
    /// Its price.
    pub price_euro_cents: i64,
    /// A price that is kept at Stripe.
    #[serde(default)]
    pub stripe_price_id: Option<String>,
    /// Whether it is for sale.
    #[serde(default)]
    pub active: Option<bool>,
    /// Place in the list.
    #[serde(default)]
    pub sort_order: Option<i32>,
    /// Anything.
    #[serde(default)]
    pub metadata: Option<Value>,
}

/// What orders say that was sold, in the order in which it was sold first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SoldAs {
    /// The package, if the order names one.
    pub package_id: Option<String>,
    /// How much mana.
    pub credits: i64,
    /// For how much.
    pub price_euro_cents: i64,
}

/// Where what was sold is found here.
#[derive(Debug, Default)]
pub struct Sales {
    versions: HashMap<SoldAs, (String, i32)>,
    /// Packages that can't be one here, and why.
    pub refused: Vec<String>,
    /// Packages that are here.
    pub packages: u64,
}

impl Sales {
    /// Package and version of an order.
    pub(super) fn find(&self, order: &OldOrder) -> Option<(String, i32)> {
        let sold = SoldAs {
            package_id: order.package_id.clone(),
            credits: order.credits,
            price_euro_cents: order.price_euro_cents,
        };
        self.versions.get(&sold).cloned()
    }
}

/// Makes the packages, and a version of them for each thing that they were sold as. What is there stays, so that doing it again
/// changes nothing.
///
/// # Errors
/// When the database fails.
pub async fn bring_packages(
    connection: &mut PgConnection,
    old: &[OldPackage],
    sold: &[SoldAs],
    now: OffsetDateTime,
) -> Result<Sales, PackageError> {
    let mut sales = Sales::default();
    let mut known: BTreeMap<&str, (PackageId, &OldPackage)> = BTreeMap::new();
    for package in old {
        let id = PackageId::try_from(package.id.clone()).map_err(str::to_owned);
        match id.and_then(|id| content(package, package.credits, package.price_euro_cents).map(|_| id)) {
            Ok(id) => drop(known.insert(&package.id, (id, package))),
            Err(reason) => sales.refused.push(format!("package {}: {reason}", package.id)),
        }
    }
    let ids: Vec<String> = known.keys().map(|id| (*id).to_owned()).collect();
    let mut untouched = store::list_packages(connection, &ids).await?;
    for thing in sold {
        let named = thing
            .package_id
            .as_deref()
            .and_then(|id| known.get(id))
            .map(|(id, old)| (id.clone(), (*old).clone()));
        let Some((id, package)) = named.or_else(|| nameless(thing)) else { continue };
        let Ok(content) = content(&package, thing.credits, thing.price_euro_cents) else { continue };
        let found =
            store::find_version(connection, id.as_str(), thing.credits, thing.price_euro_cents).await?;
        let version = match found {
            Some(version) => version,
            None => {
                untouched.remove(id.as_str());
                packages::put_package(connection, &id, &content, None, now).await?.version
            }
        };
        sales.versions.insert(thing.clone(), (id.as_str().to_owned(), version));
    }
    // What was sold came first, so that the newest version is what is for sale now.
    for (id, package) in known.values() {
        if !untouched.contains(id.as_str())
            && let Ok(content) = content(package, package.credits, package.price_euro_cents)
        {
            packages::put_package(connection, id, &content, None, now).await?;
        }
        sales.packages = sales.packages.saturating_add(1);
    }
    Ok(sales)
}

/// A package that nobody can buy, for orders that name none, or one that is gone.
fn nameless(thing: &SoldAs) -> Option<(PackageId, OldPackage)> {
    let id = PackageId::try_from(format!("legacy-{}-{}", thing.credits, thing.price_euro_cents)).ok()?;
    let package = OldPackage {
        id: id.as_str().to_owned(),
        name: format!("{} credits", thing.credits),
        description: None,
        credits: thing.credits,
        price_euro_cents: thing.price_euro_cents,
        stripe_price_id: None,
        active: Some(false),
        sort_order: None,
        metadata: None,
    };
    Some((id, package))
}

fn content(package: &OldPackage, credits: i64, price_euro_cents: i64) -> Result<PackageContent, String> {
    let is_as_now = (credits, price_euro_cents) == (package.credits, package.price_euro_cents);
    let description = package.description.clone().filter(|text| !text.is_empty());
    let metadata = match &package.metadata {
        Some(Value::Object(members)) if !members.is_empty() => Some(Metadata::try_from(members.clone())),
        _ => None,
    };
    Ok(PackageContent {
        name: Line::try_from(package.name.clone()).map_err(|error| format!("name {error}"))?,
        description: description
            .map(Paragraph::try_from)
            .transpose()
            .map_err(|error| format!("description {error}"))?,
        credits: Amount::try_from(credits).map_err(|error| format!("credits {error}"))?,
        bonus_credits: None,
        price_euro_cents: Cents::try_from(price_euro_cents)
            .map_err(|error| format!("priceEuroCents {error}"))?,
        prices: Prices::default(),
        // The price at Stripe is that of now.
        stripe_price_id: package
            .stripe_price_id
            .clone()
            .filter(|id| is_as_now && !id.is_empty())
            .map(Line::try_from)
            .transpose()
            .map_err(|error| format!("stripePriceId {error}"))?,
        active: Some(package.active.unwrap_or(true)),
        sort_order: package.sort_order,
        metadata: metadata.transpose().map_err(|error| format!("metadata {error}"))?,
    })
}
