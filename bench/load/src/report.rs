//! Tables in Markdown, as they stand in docs/BENCHMARKS.md.

use crate::observed::Observed;
use crate::processors::processors as processors_of_machine;
use crate::tally::{Tally, as_number};

/// Prints a table's head.
pub(crate) fn head(title: &str, columns: &[&str]) {
    println!("\n### {title}\n");
    row(columns);
    row(&vec!["---"; columns.len()]);
}

/// Prints a line of a table.
pub(crate) fn row<Cell: AsRef<str>>(cells: &[Cell]) {
    let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
    println!("| {} |", cells.join(" | "));
}

/// A count or rate with its thousands apart.
pub(crate) fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One number as a share of another.
pub(crate) fn percent(part: f64, of: f64) -> String {
    format!("{:.0} %", part / of * 100.0)
}

/// The columns of [`latencies`].
pub(crate) const LATENCIES: [&str; 6] =
    ["right answers/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "not right"];

/// Rate and latencies of a load.
pub(crate) fn latencies(tally: &Tally) -> Vec<String> {
    let failures = tally.failures();
    vec![
        whole(tally.rate()),
        format!("{:.2}", tally.millis_at(0.5)),
        format!("{:.2}", tally.millis_at(0.99)),
        format!("{:.2}", tally.millis_at(0.999)),
        format!("{:.2}", tally.slowest_millis()),
        if failures.is_empty() { "none".to_owned() } else { failures },
    ]
}

/// The columns of [`processors`].
pub(crate) const PROCESSORS: [&str; 6] = [
    "service (µs each)",
    "PostgreSQL (µs each)",
    "load (µs each)",
    "others and kernel",
    "idle",
    "of it disk",
];

/// How many processors each had, and what that is for each right answer, which is nearly the same on a busy machine.
pub(crate) fn processors(observed: &Observed, rate: f64) -> Vec<String> {
    let split = observed.split;
    let with_cost = |share: f64| format!("{share:.2} ({:.0})", share * 1e6 / rate);
    let ours = [split.server, split.postgres, split.load].map(with_cost);
    let rest = [split.others, split.idle, split.waiting_for_disk].map(|share| format!("{share:.2}"));
    [ours, rest].concat()
}

/// What the backends were seen doing, the most frequent first.
pub(crate) fn waits(observed: &Observed) -> String {
    let total: u64 = observed.waits.iter().map(|(_, count)| count).sum();
    let words = observed.waits.iter().take(6);
    let words = words.map(|(what, count)| format!("{what} {}", percent(as_number(*count), as_number(total))));
    words.collect::<Vec<_>>().join("; ")
}

/// Prints what the right answers of loads cost the database, for each number of connections.
pub(crate) fn costs(title: &str, loads: &[(usize, Tally, Observed)]) {
    let columns =
        ["connections", "commits", "WAL records", "WAL bytes", "answers per flush", "what the backends did"];
    head(title, &columns);
    for (connections, tally, observed) in loads {
        let each = |count: u64| as_number(count) / as_number(tally.rights());
        let written = observed.written;
        let per_sync =
            written.syncs.map(|syncs| format!("{:.1}", as_number(tally.rights()) / as_number(syncs.max(1))));
        row(&[
            connections.to_string(),
            format!("{:.2}", each(written.commits)),
            format!("{:.1}", each(written.records)),
            whole(each(written.bytes)),
            per_sync.unwrap_or_default(),
            waits(observed),
        ]);
    }
}

/// What keeps a load from being faster: the processors, the load itself, or what the backends stand and wait for.
pub(crate) fn bound(observed: &Observed) -> String {
    let split = observed.split;
    if split.load > 0.95 {
        return "the load's one thread".to_owned();
    }
    if split.idle < as_number(processors_of_machine()) * 0.05 {
        let mut parts = [
            (split.server, "service"),
            (split.postgres, "PostgreSQL"),
            (split.load, "load"),
            (split.others, "others"),
        ];
        parts.sort_by(|a, b| b.0.total_cmp(&a.0));
        let names = parts.iter().take(2).map(|(_, name)| *name).collect::<Vec<_>>();
        return format!("the processors: {}", names.join(", then "));
    }
    let busy = || observed.waits.iter().filter(|(what, _)| what != "idle");
    let total: u64 = busy().map(|(_, count)| count).sum();
    let of_log: u64 = busy().filter(|(what, _)| what.contains("WAL")).map(|(_, count)| count).sum();
    if total > 0 && of_log * 2 >= total {
        return format!(
            "the disk: flushes of the WAL {} of busy backends",
            percent(as_number(of_log), as_number(total))
        );
    }
    let most =
        busy().next().map(|(what, count)| format!("{what} {}", percent(as_number(*count), as_number(total))));
    format!("waiting; busy backends: {}", most.unwrap_or_else(|| "none".to_owned()))
}
