//! The law of migrations: none keeps the service waiting for as long as a table is large, and none takes away what the release
//! before still uses.

use crate::{ChoreError, root};
use mana_platform::migration_plan;

/// Before the first release there were no installations whose tables could be large, and no release before it.
const LAST_BEFORE_THE_FIRST_RELEASE: u32 = 17;

/// Every breach, as a sentence with its place.
pub(crate) fn check() -> Result<Vec<String>, ChoreError> {
    let folder = root().join("migrations");
    let mut breaches = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sql = std::fs::read_to_string(&path).map_err(|error| ChoreError::File(path.clone(), error))?;
        match name.split('_').next().map(str::parse::<u32>) {
            Some(Ok(number)) if number <= LAST_BEFORE_THE_FIRST_RELEASE => {}
            Some(Ok(_)) => breaches.extend(breaches_in(&name, &sql)),
            _ => breaches.push(format!("migrations/{name}: the name begins with a number")),
        }
    }
    breaches.sort();
    Ok(breaches)
}

fn breaches_in(name: &str, sql: &str) -> Vec<String> {
    if sql.starts_with("-- no-transaction") && !migration_plan::is_repeatable(sql) {
        return vec![format!(
            "migrations/{name}: without a transaction stands one CREATE INDEX CONCURRENTLY IF NOT EXISTS, because it may be tried again, and nothing else"
        )];
    }
    let steps = migration_plan::steps(sql);
    let refused = steps.iter().filter_map(|step| {
        let refusal = step.refusal()?;
        Some(format!("migrations/{name}:{}: {refusal}. If it is right here: a comment before it, `-- Accepted:` and why", step.line))
    });
    refused.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breach_has_its_place() {
        let breaches =
            breaches_in("0099_x.sql", "-- What for.\nALTER TABLE auth.users ALTER name SET NOT NULL;");
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].starts_with("migrations/0099_x.sql:2: locks the table"), "{breaches:?}");
        assert_eq!(breaches_in("0099_x.sql", "-- no-transaction\nSELECT 1;").len(), 1);
    }
}
