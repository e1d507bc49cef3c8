//! The law of migrations: none keeps the service waiting for as long as a table is large, and none takes away what the release
//! before still uses.

use crate::{ChoreError, root};
use mana_platform::migration_plan;

/// Before the first release there were no installations whose tables could be large, and no release before it.
const LAST_BEFORE_THE_FIRST_RELEASE: u32 = 17;

/// Numbers that no file ever had and none may get: a database that is further on would never carry it out, and nothing would notice.
const GAPS: [u32; 2] = [12, 21];

/// Statements of migrations that were released before there was a rule against them, and why they are right all the same: what was released
/// is never edited. Newer files say it themselves.
const ACCEPTED: [(&str, usize, &str); 3] = [
    (
        "0018_receipts_and_auto_top_up.sql",
        3,
        "purchases_credited_when_captured says the same as before it of rows without added tax, and the release before writes no others",
    ),
    ("0027_top_ups_by_notice.sql", 10, "auto_top_ups_reason_known allows more than the one before it"),
    (
        "0028_begun_in_and_disowned_later.sql",
        12,
        "disown_tokens_session_id_key: no statement of the release before names it or its columns in an ON CONFLICT",
    ),
];

/// Every breach, as a sentence with its place.
pub(crate) fn check() -> Result<Vec<String>, ChoreError> {
    let folder = root().join("migrations");
    let mut breaches = Vec::new();
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sql = std::fs::read_to_string(&path).map_err(|error| ChoreError::File(path.clone(), error))?;
        let Some(Ok(number)) = name.split('_').next().map(str::parse::<u32>) else {
            breaches.push(format!("migrations/{name}: the name begins with a number"));
            continue;
        };
        numbers.push(number);
        if number > LAST_BEFORE_THE_FIRST_RELEASE {
            breaches.extend(breaches_in(&name, &sql));
        }
    }
    breaches.extend(breaches_of(numbers));
    breaches.sort();
    Ok(breaches)
}

/// Numbers follow each other, so that whoever adds one can only add it above all others.
fn breaches_of(mut numbers: Vec<u32>) -> Vec<String> {
    numbers.sort_unstable();
    let twice = numbers.iter().zip(numbers.iter().skip(1)).filter(|(number, next)| number == next);
    let mut breaches: Vec<String> =
        twice.map(|(number, _)| format!("migrations/{number:04}: two files have this number")).collect();
    let newest = numbers.last().copied().unwrap_or_default();
    for number in 1..=newest {
        match (numbers.binary_search(&number).is_ok(), GAPS.contains(&number)) {
            (true, true) => breaches.push(format!(
                "migrations/{number:04}: this number stays free: a database at {newest} would never carry it out. Take {:04}",
                newest.saturating_add(1)
            )),
            (false, false) => breaches.push(format!(
                "migrations/{number:04}: is missing. Give the next file this number before anything is released, or name it in GAPS: nobody may fill it later"
            )),
            _ => {}
        }
    }
    breaches
}

fn breaches_in(name: &str, sql: &str) -> Vec<String> {
    if sql.starts_with("-- no-transaction") && !migration_plan::is_repeatable(sql) {
        return vec![format!(
            "migrations/{name}: without a transaction stands one CREATE INDEX CONCURRENTLY IF NOT EXISTS, or VALIDATE CONSTRAINT alone, because these may be tried again, and nothing else"
        )];
    }
    let steps = migration_plan::steps(sql);
    let refused = steps.iter().filter_map(|step| {
        let is_accepted = ACCEPTED.iter().any(|(file, line, _)| (*file, *line) == (name, step.line));
        let refusal = step.refusal().filter(|_| !is_accepted)?;
        Some(format!("migrations/{name}:{}: {refusal}. If it is right here: a comment before it, `-- Accepted:` and why", step.line))
    });
    refused.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_above_all_others() {
        let but_for = |left_out: &[u32], more: &[u32]| {
            let numbers = (1..=26).filter(|number| ![12, 21].contains(number) && !left_out.contains(number));
            breaches_of(numbers.chain(more.iter().copied()).collect())
        };
        assert!(but_for(&[], &[]).is_empty() && but_for(&[], &[27]).is_empty());
        for (left_out, more, place) in
            [(&[][..], &[12][..], "0012"), (&[], &[26], "0026"), (&[20], &[], "0020"), (&[], &[28], "0027")]
        {
            let breaches = but_for(left_out, more);
            assert!(breaches.len() == 1 && breaches[0].contains(place), "{breaches:?}");
        }
    }

    #[test]
    fn a_breach_has_its_place() {
        let breaches =
            breaches_in("0099_x.sql", "-- What for.\nALTER TABLE auth.users ALTER name SET NOT NULL;");
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].starts_with("migrations/0099_x.sql:2: locks the table"), "{breaches:?}");
        assert_eq!(breaches_in("0099_x.sql", "-- no-transaction\nSELECT 1;").len(), 1);
    }
}
