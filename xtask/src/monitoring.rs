//! The law of monitoring: what a dashboard or a rule asks for is counted by the code, from the start of a server on if it is asked how much it
//! rose, and what the code counts or logs is documented; every alert has a runbook and a test, and panels lie beside each other.

use crate::{ChoreError, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
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
/// Of Grafana's grid.
const COLUMNS: u64 = 24;
const LOG_LINES: &str = "### Log lines";

/// Every breach, as a sentence.
pub(crate) fn check(sources: &[std::path::PathBuf]) -> Result<Vec<String>, ChoreError> {
    let (mut counted, mut from_zero, mut fields) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for path in sources {
        let named = named_in(&read(path)?, path)?;
        counted.extend(named.counted);
        from_zero.extend(named.from_zero);
        fields.extend(named.fields);
    }
    counted.extend(measured_in(&read(&root().join(MEASURE))?));
    let mut breaches = Vec::new();
    let mut dashboards = BTreeMap::new();
    let mut asked = Vec::new();
    for entry in std::fs::read_dir(root().join("deploy/grafana/dashboards"))? {
        let path = entry?.path();
        let dashboard: Value = serde_json::from_str(&read(&path)?)?;
        let name = format!("dashboard {}", path.file_name().unwrap_or_default().display());
        breaches.extend(misplaced(&dashboard).into_iter().map(|breach| format!("{name}: {breach}")));
        let uid = dashboard.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(other) = dashboards.insert(uid, name.clone()) {
            breaches.push(format!("{name} has the uid of {other}"));
        }
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
        for metric in increases_of(&expression) {
            if !from_zero.contains(metric) {
                breaches.push(format!(
                    "{place} asks how much {metric} increases, but it is not there from the start on: its first time would not be seen"
                ));
            }
        }
    }
    let document = read(&root().join(DOCUMENT))?;
    for metric in &counted {
        if !document.contains(&format!("`{metric}")) {
            breaches.push(format!("{DOCUMENT} does not explain {metric}"));
        }
    }
    let lines = section(&document, LOG_LINES);
    for field in &fields {
        if !lines.contains(&format!("`{field}`")) {
            breaches.push(format!("{DOCUMENT} does not explain {field}, a field of log lines"));
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

/// What a file counts and logs.
#[derive(Default)]
struct Named {
    /// Names given to `counter!`, `gauge!` and `histogram!`.
    counted: Vec<String>,
    /// Those that are told to rise by nothing, so that they are there.
    from_zero: Vec<String>,
    /// Fields of log lines.
    fields: Vec<String>,
}

impl Visit<'_> for Named {
    fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
        if let syn::Expr::Macro(counter) = &*call.receiver
            && call.method == "increment"
            && matches!(call.args.first(), Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(by), .. })) if by.base10_digits() == "0")
        {
            self.from_zero.extend(metric_of(&counter.mac));
        }
        syn::visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, found: &syn::Macro) {
        let name = found.path.segments.last().map(|segment| segment.ident.to_string());
        match name.as_deref() {
            Some("counter" | "gauge" | "histogram") => self.counted.extend(metric_of(found)),
            Some("error" | "warn" | "info" | "debug" | "trace") => self.fields.extend(fields_of(found)),
            _ => {}
        }
    }
}

/// The name of a metric; a literal stands first, or this is another macro of that name.
fn metric_of(found: &syn::Macro) -> Option<String> {
    let tokens = found.tokens.to_string();
    tokens.strip_prefix('"').and_then(|rest| rest.split('"').next()).map(str::to_owned)
}

/// The fields of a log line: what stands before its text, as `name = value`, `%name` or `name`.
fn fields_of(found: &syn::Macro) -> Vec<String> {
    let words: Vec<_> = found.tokens.clone().into_iter().map(|token| token.to_string()).collect();
    let arguments = words.split(|word| word == ",");
    let before_text =
        arguments.take_while(|argument| argument.first().is_some_and(|word| !word.starts_with('"')));
    before_text
        .map(|argument| {
            argument.iter().take_while(|word| *word != "=").map(String::as_str).collect::<String>()
        })
        .map(|name| name.trim_start_matches(['%', '?']).to_owned())
        .collect()
}

fn named_in(text: &str, path: &Path) -> Result<Named, ChoreError> {
    let file = syn::parse_file(text).map_err(|error| ChoreError::Parse(path.to_owned(), error))?;
    let mut named = Named::default();
    named.visit_file(&file);
    Ok(named)
}

/// A part of a document, from its heading to the next.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let (_, rest) = document.split_once(&format!("\n{heading}\n")).unwrap_or_default();
    rest.split("\n#").next().unwrap_or_default()
}

/// Panels of one id, or that lie over each other or beyond the edge.
fn misplaced(dashboard: &Value) -> Vec<String> {
    let panels = dashboard.get("panels").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |panel: &Value, name: &str| panel.pointer(name).and_then(Value::as_u64).unwrap_or_default();
    let title = |panel: &Value| panel.get("title").and_then(Value::as_str).unwrap_or_default().to_owned();
    let area = |panel: &Value| {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| number(panel, &format!("/gridPos/{name}")));
        (x..x.saturating_add(w), y..y.saturating_add(h))
    };
    let mut breaches = Vec::new();
    for (place, panel) in panels.iter().enumerate() {
        let (columns, lines) = area(panel);
        if columns.end > COLUMNS {
            breaches.push(format!("{} reaches beyond the edge", title(panel)));
        }
        for other in panels.iter().take(place) {
            let (other_columns, other_lines) = area(other);
            let meets = columns.start < other_columns.end && other_columns.start < columns.end;
            if meets && lines.start < other_lines.end && other_lines.start < lines.end {
                breaches.push(format!("{} lies over {}", title(panel), title(other)));
            }
            if number(panel, "/id") == number(other, "/id") {
                breaches.push(format!("{} has the id of {}", title(panel), title(other)));
            }
        }
    }
    breaches
}

/// The names that a script gives to its function `gauge`.
fn measured_in(script: &str) -> Vec<String> {
    let calls = script.lines().filter_map(|line| line.trim().strip_prefix("gauge "));
    calls.filter_map(|call| call.split(' ').next()).map(str::to_owned).collect()
}

/// Every `expr` in a dashboard, wherever it stands, and what its variables are filled from.
fn expressions(value: &Value) -> Vec<String> {
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

/// Every `expr` of a file of rules: in its line, or folded in those that follow and stand further in.
fn rule_expressions(rules: &str) -> Vec<String> {
    let indent = |line: &str| line.len().saturating_sub(line.trim_start().len());
    let mut lines = rules.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(expression) = line.trim().strip_prefix("expr:") {
            let mut expression = expression.trim().trim_start_matches(">-").to_owned();
            while let Some(more) = lines.next_if(|more| indent(more) > indent(line)) {
                expression.push(' ');
                expression.push_str(more.trim());
            }
            found.push(expression.trim().to_owned());
        }
    }
    found
}

/// The metrics of which an expression asks how much they rose.
fn increases_of(expression: &str) -> impl Iterator<Item = &str> {
    let asked = expression.split("increase(").skip(1);
    asked
        .filter_map(|rest| rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next())
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
        let text = "fn f() { let a = Counted::on(metrics::gauge!(\"a_open\")); g(|| counter!(\"b_total\", \"x\" => y)); \
            metrics::counter!(\"c_total\").increment(0); metrics::counter!(\"d_total\").increment(1); \
            tracing::warn!(order = order.id(1, 2), %peer, code, \"{} is refused\", what); tracing::info!(\"no field\"); }";
        let named = named_in(text, Path::new("x.rs")).unwrap();
        assert_eq!(named.counted, ["a_open", "b_total", "c_total", "d_total"]);
        assert_eq!(named.from_zero, ["c_total"]);
        assert_eq!(named.fields, ["order", "peer", "code"]);
    }

    #[test]
    fn a_folded_expression_is_read_to_its_end() {
        let rules = "  - alert: A\n    expr: >-\n      sum(increase(a_total[1h])) > 10\n      and sum(b) > 1\n    for: 5m\n  - alert: B\n    expr: c > 1\n    for: 1m\n";
        let found = rule_expressions(rules);
        assert_eq!(found, ["sum(increase(a_total[1h])) > 10 and sum(b) > 1", "c > 1"]);
        assert_eq!(increases_of(&found[0]).collect::<Vec<_>>(), ["a_total"]);
    }

    #[test]
    fn panels_lie_beside_each_other() {
        let panel = |id: u32, x: u32, y: u32| serde_json::json!({"id": id, "title": id.to_string(), "gridPos": {"x": x, "y": y, "w": 8, "h": 8}});
        let dashboard = |panels: &[Value]| misplaced(&serde_json::json!({ "panels": panels }));
        assert_eq!(dashboard(&[panel(1, 0, 0), panel(2, 8, 0), panel(3, 0, 8)]), Vec::<String>::new());
        assert_eq!(dashboard(&[panel(1, 0, 0), panel(2, 7, 7)]), ["2 lies over 1"]);
        assert_eq!(dashboard(&[panel(1, 0, 0), panel(1, 16, 0)]), ["1 has the id of 1"]);
        assert_eq!(dashboard(&[panel(1, 17, 0)]), ["1 reaches beyond the edge"]);
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        assert_eq!(section("x\n### A\nb\n\n## C\nd", "### A"), "b\n");
        assert_eq!(section("x\n### A\nb", "### B"), "");
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
