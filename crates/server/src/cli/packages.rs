//! `packages`: what is for sale.

use super::{CommandError, print};
use crate::app;
use crate::source::Source;
use clap::Subcommand;
use mana_credits::package;
use mana_credits::package::model::{NamedPackage, PackageResponse};
use mana_kernel::{Clock, Rng};
use mana_platform::{Settings, SystemClock, SystemRng};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum PackagesCommand {
    /// Make the packages of a file, or new versions of them: a JSON array as `[{"id": "small", "name": "500 mana", "credits": 500, "priceEuroCents": 500}]`. Others stay as they are
    Import {
        /// The file; `-` is standard input
        file: PathBuf,
    },
    /// List the packages, those that are not for sale too
    List,
}

/// Does what a command says.
pub(super) async fn run(
    command: &PackagesCommand,
    settings: &Settings,
    source: Source,
    json: bool,
) -> Result<(), CommandError> {
    let database = source.database(settings);
    match command {
        PackagesCommand::Import { file } => {
            let text = read(file).map_err(|cause| CommandError::File { path: file.clone(), cause })?;
            let packages: Vec<NamedPackage> = serde_json::from_str(&text)
                .map_err(|error| CommandError::PackageFile { path: file.clone(), error })?;
            let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (Arc::new(SystemClock), Arc::new(SystemRng));
            let log = app::admin_log(&clock, &rng);
            show(&package::import(&database, &SystemClock, &*log, &packages).await?, json)
        }
        PackagesCommand::List => show(&package::list_all(&database).await?, json),
    }
}

fn read(path: &Path) -> io::Result<String> {
    if path == Path::new("-") {
        io::read_to_string(io::stdin().lock())
    } else {
        std::fs::read_to_string(path)
    }
}

fn show(packages: &[PackageResponse], json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(print::line(&serde_json::to_string_pretty(packages)?)?);
    }
    if packages.is_empty() {
        return Ok(print::line("There is no package yet: `packages import` makes some.")?);
    }
    for package in packages {
        print::line(&package.summary())?;
    }
    Ok(())
}
