//! `users`: accounts, one by one, and from and to other installations and programs.

use super::progress::Progress;
use super::user::{self, UserCommand};
use super::{Cli, CommandError, print};
use crate::app;
use crate::ports::OpenWallet;
use crate::source::Source;
use clap::{Subcommand, ValueEnum};
use mana_auth::account::moving::{self, Counts, Format, Refused, Step, Target};
use mana_auth::bonus::SignupBonus;
use mana_platform::{SystemClock, SystemRng};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    #[command(flatten)]
    One(UserCommand),
    /// Make accounts out of a file; servers may go on meanwhile. Started again, it goes on where it was cut off
    Import {
        /// JSON lines or CSV; - is standard input. Members: email, and if wanted id, emailVerified, name, role, image, createdAt,
        /// disabledAt, passwordHash (bcrypt, scrypt, PBKDF2 or Argon2)
        file: PathBuf,
        /// How the file is written; by its name when not given
        #[arg(long, value_enum)]
        format: Option<FileFormat>,
        /// Try everything and keep nothing
        #[arg(long)]
        dry_run: bool,
        /// Give each imported account the sign-up bonus
        #[arg(long)]
        with_bonus: bool,
        /// Take administrators and programs too; without it, their rows are refused
        #[arg(long)]
        keep_roles: bool,
    },
    /// Write all accounts as JSON lines; servers may go on meanwhile
    Export {
        /// A new file, readable by nobody else; without it, standard output
        #[arg(long)]
        output: Option<PathBuf>,
        /// With the hashes of the passwords: whoever has the file can guess them at leisure
        #[arg(long)]
        with_hashes: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FileFormat {
    Jsonl,
    Csv,
}

/// Does what a command says.
pub(super) async fn run(command: &UsersCommand, cli: &Cli, source: Source) -> Result<(), CommandError> {
    let database = source.database(&cli.settings);
    match command {
        UsersCommand::One(command) => user::run(command, &cli.settings, source, cli.json).await,
        UsersCommand::Import { file, format, dry_run, with_bonus, keep_roles } => {
            let wallets = OpenWallet {
                policy: app::credits_policy(&cli.settings),
                clock: Arc::new(SystemClock),
                rng: Arc::new(SystemRng),
            };
            let target = Target {
                database: &database,
                clock: &SystemClock,
                rng: &SystemRng,
                on_user_registered: &wallets,
                bonus: if *with_bonus { SignupBonus::Given } else { SignupBonus::Withheld },
                keeps_roles: *keep_roles,
                is_dry: *dry_run,
            };
            let (input, length) = open(file)?;
            let mut progress = Progress::new(length);
            let mut printed = Ok(());
            let lines = moving::read(input, format_of(file, *format));
            let counts = moving::import(&target, lines, |step| match step {
                Step::Refused(refused) => {
                    progress.clear();
                    // What can't be printed is counted all the same.
                    printed = std::mem::replace(&mut printed, Ok(())).and_then(|()| told(refused, cli.json));
                }
                Step::Done(bytes, counts) => progress.show(bytes, &in_words(counts)),
            })
            .await?;
            progress.clear();
            printed?;
            imported(&counts, *dry_run, cli.json)
        }
        UsersCommand::Export { output: Some(path), with_hashes } => {
            let failed = |cause| CommandError::File { path: path.clone(), cause };
            let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
            let mut progress = Progress::new(0);
            let output = BufWriter::new(&file);
            let written = moving::export(&database, output, *with_hashes, shown(&mut progress)).await?;
            file.sync_all().map_err(failed)?;
            progress.clear();
            let text = if cli.json {
                json!({ "exported": written }).to_string()
            } else {
                format!("{written} accounts exported.")
            };
            Ok(print::line(&text)?)
        }
        UsersCommand::Export { output: None, with_hashes } => {
            let mut progress = Progress::new(0);
            let output = BufWriter::new(io::stdout().lock());
            moving::export(&database, output, *with_hashes, shown(&mut progress)).await?;
            progress.clear();
            Ok(())
        }
    }
}

/// The file, and how many bytes it has, if that can be known.
fn open(path: &Path) -> Result<(Box<dyn BufRead>, u64), CommandError> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), 0));
    }
    let failed = |cause| CommandError::File { path: path.to_owned(), cause };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    Ok((Box::new(BufReader::new(file)), length))
}

fn format_of(path: &Path, format: Option<FileFormat>) -> Format {
    let is_named_csv = || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    if format.map_or_else(is_named_csv, |format| format == FileFormat::Csv) {
        Format::Csv
    } else {
        Format::JsonLines
    }
}

fn shown(progress: &mut Progress) -> impl FnMut(u64, u64) {
    |total, written| {
        progress.of(total);
        progress.show(written, &format!("{written} accounts"));
    }
}

fn told(refused: &Refused, json: bool) -> io::Result<()> {
    let Refused { line, reason } = refused;
    let text = if json {
        json!({ "line": line, "refused": reason }).to_string()
    } else {
        format!("line {line}: {reason}")
    };
    print::line(&text)
}

fn in_words(counts: &Counts) -> String {
    let Counts { imported, present, refused, .. } = counts;
    format!("{imported} accounts imported, {present} there already, {refused} refused")
}

/// Fails if a row was refused.
fn imported(counts: &Counts, is_dry: bool, json: bool) -> Result<(), CommandError> {
    let Counts { rows, imported, present, refused } = counts;
    print::line(&if json {
        json!({ "rows": rows, "imported": imported, "present": present, "refused": refused, "dryRun": is_dry })
            .to_string()
    } else {
        let note = if is_dry { " This was a dry run: nothing was kept." } else { "" };
        format!("Of {rows} rows: {}.{note}", in_words(counts))
    })?;
    if *refused == 0 { Ok(()) } else { Err(CommandError::RowsRefused(*refused)) }
}
