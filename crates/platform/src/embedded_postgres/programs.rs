//! Finds the installed PostgreSQL.

use super::EmbeddedPostgresError as Error;
use super::process::shell;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) const OLDEST_MAJOR: u32 = 14;

/// Says the version and the folder of each installation, on two lines.
const LIST: &str = r#"
for link in "$(command -v postgres)" /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres \
    /opt/homebrew/opt/postgresql@*/bin/postgres /usr/local/opt/postgresql@*/bin/postgres \
    /Applications/Postgres.app/Contents/Versions/*/bin/postgres
do
    [ -x "$link" ] && readlink -f "$link"
done | sort -u | while read -r program; do
    folder=${program%/*}
    [ -x "$folder/initdb" ] && "$program" --version && echo "$folder"
done"#;

/// The folder of the programs of the version that wrote the data, if there is data, else of the newest.
pub(super) fn find(folder: &Path) -> Result<PathBuf, Error> {
    let written_by = fs::read_to_string(folder.join("cluster/PG_VERSION")).ok();
    let written_by: Option<u32> = written_by.and_then(|version| version.trim().parse().ok());
    let installed = installed();
    let Some((newest, programs)) = installed.iter().max() else {
        return Err(Error::NotInstalled);
    };
    if *newest < OLDEST_MAJOR {
        return Err(Error::TooOld(*newest));
    }
    let Some(version) = written_by else {
        return Ok(programs.clone());
    };
    let of_that_version = installed.into_iter().find(|(major, _)| *major == version);
    let (_, programs) = of_that_version.ok_or_else(|| Error::OtherVersion(folder.to_owned(), version))?;
    Ok(programs)
}

fn installed() -> Vec<(u32, PathBuf)> {
    let said = shell(LIST, &[]).map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let mut lines = said.lines();
    std::iter::from_fn(|| Some((lines.next()?, lines.next()?)))
        .filter_map(|(version, folder)| Some((major(version)?, PathBuf::from(folder))))
        .collect()
}

/// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` or `postgres (PostgreSQL) 18beta1`.
pub(super) fn major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
