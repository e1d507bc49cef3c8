//! The law of monitoring: what a dashboard or a rule asks for is counted by the code, and what the code counts is documented; every
//! alert has a runbook and a test.

use crate::{ChoreError, root};
use std::collections::BTreeSet;
use std::path::Path;
use syn::visit::Visit;

/// Counted by others than this code: Prometheus itself, Traefik, and the library that looks at the process.
const OF_OTHERS: [&str; 7] = [
    "up",
    "traefik_tls_certs_not_after",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

/// Each file of rules has one of tests, of the same name.
const RULES: &str = "deploy/prometheus/rules";
const TESTS: &str = "deploy/prometheus/tests";
/// Counts what no server can.
const MEASURE: &str = "deploy/backup/measure";
const DOCUMENT: &str = "docs/OPERATIONS.md";

/// Every breach, as a sentence.
pub(crate) fn check(sources: &[std::path::PathBuf]) -> Result<Vec<String>, ChoreError> {
    let mut counted = BTreeSet::new();
    for path in sources {
        counted.extend(counted_in(&read(path)?, path)?);
    }
    counted.extend(measured_in(&read(&root().join(MEASURE))?));
    let mut breaches = Vec::new();
    let mut asked = Vec::new();
    for entry in std::fs::read_dir(root().join("deploy/grafana/dashboards"))? {
        let path = entry?.path();
        let dashboard: serde_json::Value = serde_json::from_str(&read(&path)?)?;
        let name = format!("dashboard {}", path.file_name().unwrap_or_default().display());
        asked.extend(expressions(&dashboard).into_iter().map(|expression| (name.clone(), expression)));
    }
    let mut alerts = Vec::new();
    for entry in std::fs::read_dir(root().join(RULES))? {
        let path = entry?.path();
        let rules = read(&path)?;
        let file = path.file_name().unwrap_or_default();
        let name = format!("{RULES}/{}", file.display());
        asked.extend(rule_expressions(&rules).into_iter().map(|expression| (name.clone(), expression)));
        let tests = root().join(TESTS).join(file);
        alerts.extend(values_of(&rules, "- alert:").into_iter().map(|alert| (alert, tests.clone())));
    }
    for (place, expression) in asked {
        for metric in metrics_of(&expression) {
            if !is_counted(&metric, &counted) {
                breaches.push(format!("{place} asks for {metric}, which nothing counts"));
            }
        }
    }
    let document = read(&root().join(DOCUMENT))?;
    for metric in &counted {
        if !document.contains(&format!("`{metric}")) {
            breaches.push(format!("{DOCUMENT} does not explain {metric}"));
        }
    }
    for (alert, path) in alerts {
        if !document.contains(&format!("\n### {alert}\n")) {
            breaches.push(format!("{DOCUMENT} has no runbook for {alert}"));
        }
        if read(&path)?.matches(&format!("alertname: {alert}\n")).count() < 2 {
            breaches.push(format!("{} does not try {alert} both ways", path.display()));
        }
    }
    breaches.sort();
    breaches.dedup();
    Ok(breaches)
}

fn read(path: &Path) -> Result<String, ChoreError> {
    std::fs::read_to_string(path).map_err(|error| ChoreError::File(path.to_owned(), error))
}

/// Histograms are asked for by their parts.
fn is_counted(metric: &str, counted: &BTreeSet<String>) -> bool {
    let whole = ["_bucket", "_sum", "_count"].iter().find_map(|part| metric.strip_suffix(part));
    OF_OTHERS.contains(&metric)
        || counted.contains(metric)
        || whole.is_some_and(|whole| counted.contains(whole))
}

/// The names that a file gives to `counter!`, `gauge!` and `histogram!`.
fn counted_in(text: &str, path: &Path) -> Result<Vec<String>, ChoreError> {
    #[derive(Default)]
    struct Counted(Vec<String>);

    impl Visit<'_> for Counted {
        fn visit_macro(&mut self, found: &syn::Macro) {
            let name = found.path.segments.last().map(|segment| segment.ident.to_string());
            if !matches!(name.as_deref(), Some("counter" | "gauge" | "histogram")) {
                return;
            }
            // A literal stands first, or this is another macro of that name.
            let tokens = found.tokens.to_string();
            if let Some(name) = tokens.strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                self.0.push(name.to_owned());
            }
        }
    }

    let file = syn::parse_file(text).map_err(|error| ChoreError::Parse(path.to_owned(), error))?;
    let mut counted = Counted::default();
    counted.visit_file(&file);
    Ok(counted.0)
}

/// The names that a script gives to its function `gauge`.
fn measured_in(script: &str) -> Vec<String> {
    let calls = script.lines().filter_map(|line| line.trim().strip_prefix("gauge "));
    calls.filter_map(|call| call.split(' ').next()).map(str::to_owned).collect()
}

/// Every `expr` in a dashboard, wherever it stands, and what its variables are filled from.
fn expressions(value: &serde_json::Value) -> Vec<String> {
    let in_list = value.as_array().into_iter().flatten().flat_map(expressions);
    let members = value.as_object().into_iter().flatten();
    let in_members = members.flat_map(|(name, value)| match (name.as_str(), value.as_str()) {
        ("expr", Some(expression)) => vec![expression.to_owned()],
        ("query", Some(query)) => query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.split(',').next())
            .map(str::to_owned)
            .into_iter()
            .collect(),
        _ => expressions(value),
    });
    in_list.chain(in_members).collect()
}

/// Every `expr` of a file of rules: it stands in the line that follows, folded.
fn rule_expressions(rules: &str) -> Vec<String> {
    let mut lines = rules.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(expression) = line.trim().strip_prefix("expr:") {
            let is_folded = expression.trim() == ">-";
            found.push(
                if is_folded { lines.next().unwrap_or_default() } else { expression }.trim().to_owned(),
            );
        }
    }
    found
}

fn values_of(rules: &str, name: &str) -> Vec<String> {
    rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix(name))
        .map(|value| value.trim().to_owned())
        .collect()
}

/// The metrics that an expression of PromQL names: names that are neither functions nor words of the language nor labels.
fn metrics_of(expression: &str) -> Vec<String> {
    const WORDS: [&str; 7] = ["and", "or", "unless", "bool", "offset", "inf", "nan"];
    const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '"' | '\'' => closing(rest, first),
            '{' => closing(rest, '}'),
            '[' => closing(rest, ']'),
            _ if first.is_ascii_digit() => {
                rest.find(|letter: char| !letter.is_alphanumeric() && letter != '.').unwrap_or(rest.len())
            }
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let end = rest
                    .find(|letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')));
                let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
                let after = after.trim_start();
                let is_called = after.starts_with('(');
                // An aggregation may say by what before its brackets.
                let is_aggregation = after.starts_with("by ") || after.starts_with("without ");
                let has_labels = BEFORE_LABELS.contains(&name);
                if !is_called && !is_aggregation && !has_labels && !WORDS.contains(&name) {
                    found.push(name.to_owned());
                }
                let labels = if has_labels && is_called { closing(after, ')') } else { 0 };
                rest.len().saturating_sub(after.len()).saturating_add(labels)
            }
            _ => first.len_utf8(),
        };
        rest = rest.get(skipped..).unwrap_or_default();
    }
    found
}

/// How far it is to the end of what begins here.
fn closing(text: &str, end: char) -> usize {
    let mut is_quoted = false;
    for (place, letter) in text.char_indices().skip(1) {
        if letter == '"' && end != '"' {
            is_quoted = !is_quoted;
        } else if letter == end && !is_quoted {
            return place.saturating_add(1);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_told_from_functions_labels_and_words() {
        for (expression, expected) in [
            (
                "sum by (le, route) (rate(a_seconds_bucket{route!~\".*(x|y}).*\"}[5m]))",
                vec!["a_seconds_bucket"],
            ),
            ("a_total / on (instance) group_left (version) b_total > 1e3", vec!["a_total", "b_total"]),
            ("time() - max(c_seconds) > 3 * 3600 and vector(1) unless d offset 5m", vec!["c_seconds", "d"]),
            ("up{job=\"x\"} == 0", vec!["up"]),
        ] {
            assert_eq!(metrics_of(expression), expected, "{expression}");
        }
    }

    #[test]
    fn names_are_found_in_macros_wherever_they_stand() {
        let text = "fn f() { let a = Counted::on(metrics::gauge!(\"a_open\")); g(|| counter!(\"b_total\", \"x\" => y)); }";
        assert_eq!(counted_in(text, Path::new("x.rs")).unwrap(), ["a_open", "b_total"]);
    }

    #[test]
    fn names_are_found_in_a_script() {
        let script = "gauge() { printf; }\n    gauge a_bytes 'Room'\n    printf 'a_bytes 1'\n    # gauge\n";
        assert_eq!(measured_in(script), ["a_bytes"]);
    }

    #[test]
    fn a_histogram_is_known_by_its_parts_and_nothing_else() {
        let counted = BTreeSet::from(["a_seconds".to_owned()]);
        assert!(is_counted("a_seconds_bucket", &counted) && is_counted("a_seconds_sum", &counted));
        assert!(!is_counted("b_seconds_bucket", &counted) && !is_counted("a_second", &counted));
    }
}
