//! The laws of the structure (docs/ARCHITECTURE.md): which crate may know which, and where a thing may be done.

use crate::{ChoreError, migrations, monitoring, root, tables};
use cargo_metadata::{DependencyKind, MetadataCommand};
use std::path::{Path, PathBuf};
use syn::visit::Visit;

/// Who may know whom. The kernel knows nobody; accounts and credits never know each other.
const MAY_KNOW: [(&str, &[&str]); 9] = [
    ("mana-kernel", &[]),
    ("mana-platform", &["mana-kernel"]),
    ("mana-auth", &["mana-kernel", "mana-platform"]),
    ("mana-credits", &["mana-kernel", "mana-platform"]),
    ("mana-core-auth", &["mana-kernel", "mana-platform", "mana-auth", "mana-credits", "stripe-fake"]),
    ("stripe-fake", &[]),
    ("mana-testkit", &["mana-kernel", "mana-platform"]),
    ("mana-bench", &["mana-kernel", "mana-platform"]),
    ("xtask", &["mana-kernel", "mana-platform"]),
];

/// What does I/O, and so is nothing for the kernel.
const NOT_IN_KERNEL: [&str; 6] = ["tokio", "axum", "sqlx", "hyper", "tracing", "metrics"];

/// What may be named in certain places only: a path and all below it, where, and why.
type Place = (&'static str, fn(&Path) -> bool, &'static str);

const PLACES: [Place; 9] = [
    ("std::fs", |path| !is_in(path, "kernel"), "the kernel does no I/O"),
    ("std::net", |path| !is_in(path, "kernel"), "the kernel does no I/O"),
    (
        "std::env::var",
        |path| path.ends_with("platform/src/config.rs"),
        "the environment is read in platform/src/config.rs",
    ),
    ("sqlx::query", may_hold_sql, "SQL of a table stands in the store.rs of its feature"),
    ("sqlx::query_as", may_hold_sql, "SQL of a table stands in the store.rs of its feature"),
    ("sqlx::query_scalar", may_hold_sql, "SQL of a table stands in the store.rs of its feature"),
    ("sqlx::raw_sql", may_hold_sql, "SQL of a table stands in the store.rs of its feature"),
    ("sqlx::QueryBuilder", may_hold_sql, "SQL of a table stands in the store.rs of its feature"),
    (SQL_BY_METHOD, may_hold_sql, "SQL of a table stands in the store.rs of its feature"),
];

/// What a file names that has a connection carry out a text, without naming sqlx.
const SQL_BY_METHOD: &str = "a text as SQL";

fn is_in(path: &Path, name: &str) -> bool {
    path.components().any(|part| part.as_os_str() == name)
}

fn may_hold_sql(path: &Path) -> bool {
    !(is_in(path, "auth") || is_in(path, "credits"))
        || path.file_name().is_some_and(|name| name == "store.rs")
}

/// Checks all laws; the error names every breach.
pub(crate) fn run() -> Result<String, ChoreError> {
    let mut breaches = check_dependencies()?;
    breaches.extend(migrations::check()?);
    let mut files = 0_usize;
    let mut all = Vec::new();
    for name in ["kernel", "platform", "auth", "credits", "server"] {
        for path in sources(&root().join("crates").join(name).join("src"))? {
            files = files.saturating_add(1);
            breaches.extend(check_file(&path)?);
            all.push(path);
        }
    }
    breaches.extend(tables::check(&all)?);
    breaches.extend(monitoring::check(&all)?);
    breaches.extend(crate::threats::breaches()?);
    if breaches.is_empty() {
        Ok(format!("tidy: {files} files and {} crates keep the laws", MAY_KNOW.len()))
    } else {
        Err(ChoreError::Law(breaches.join("\n")))
    }
}

fn check_dependencies() -> Result<Vec<String>, ChoreError> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let mut breaches = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some((_, may_know)) = MAY_KNOW.iter().find(|(known, _)| *known == name) else {
            breaches.push(format!("{name} is a crate without a place in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in
            package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal)
        {
            let is_ours = MAY_KNOW.iter().any(|(ours, _)| *ours == dependency.name);
            if is_ours && !may_know.contains(&dependency.name.as_str()) {
                breaches.push(format!("{name} must not know {}", dependency.name));
            }
            if name == "mana-kernel" && NOT_IN_KERNEL.contains(&dependency.name.as_str()) {
                breaches.push(format!("mana-kernel must not know {}: it does no I/O", dependency.name));
            }
        }
    }
    Ok(breaches)
}

pub(crate) fn sources(folder: &Path) -> Result<Vec<PathBuf>, ChoreError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

fn check_file(path: &Path) -> Result<Vec<String>, ChoreError> {
    let text = std::fs::read_to_string(path).map_err(|error| ChoreError::File(path.to_owned(), error))?;
    let file = syn::parse_file(&text).map_err(|error| ChoreError::Parse(path.to_owned(), error))?;
    let mut named = NamedPaths::default();
    named.visit_file(&file);
    // Folders above the checkout may have any name.
    let place = path.strip_prefix(root()).unwrap_or(path);
    let refused = |(prefix, may, why): &Place| {
        let names_it =
            named.paths.iter().any(|named| named == prefix || named.starts_with(&format!("{prefix}::")));
        (names_it && !may(place)).then(|| format!("{}: {prefix}: {why}", place.display()))
    };
    Ok(PLACES.iter().filter_map(refused).collect())
}

/// Every path that a file names, in `use` lines and in place.
#[derive(Default)]
struct NamedPaths {
    paths: Vec<String>,
}

impl NamedPaths {
    fn add_use(&mut self, prefix: &str, tree: &syn::UseTree) {
        let joined = |name: &syn::Ident| {
            if prefix.is_empty() { name.to_string() } else { format!("{prefix}::{name}") }
        };
        match tree {
            syn::UseTree::Path(path) => self.add_use(&joined(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.paths.push(joined(&name.ident)),
            syn::UseTree::Rename(rename) => self.paths.push(joined(&rename.ident)),
            syn::UseTree::Glob(_) => self.paths.push(prefix.to_owned()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.add_use(prefix, item)),
        }
    }
}

/// Whether it is a method of `sqlx::Executor`.
fn is_execution(method: &str) -> bool {
    ["execute", "fetch", "prepare", "describe"].iter().any(|start| method.starts_with(start))
}

impl Visit<'_> for NamedPaths {
    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.add_use("", &item.tree);
    }

    fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
        let is_text =
            matches!(call.args.first(), Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(_), .. })));
        let method = call.method.to_string();
        if method.starts_with("copy_in") || method.starts_with("copy_out") || is_text && is_execution(&method)
        {
            self.paths.push(SQL_BY_METHOD.to_owned());
        }
        syn::visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.paths.push(names.join("::"));
        syn::visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_seen_in_use_lines_in_place_and_in_macros() {
        let file = syn::parse_file(
            "use std::{fs::File, env as e}; fn f() { sqlx::query!(\"SELECT 1\"); std::net::lookup(); c.execute(\"DELETE\"); }",
        )
        .unwrap();
        let mut named = NamedPaths::default();
        named.visit_file(&file);
        for path in ["std::fs::File", "std::env", "sqlx::query", "std::net::lookup", SQL_BY_METHOD] {
            assert!(named.paths.iter().any(|named| named == path), "{path} in {:?}", named.paths);
        }
    }

    #[test]
    fn the_laws_hold() {
        run().unwrap();
    }
}
