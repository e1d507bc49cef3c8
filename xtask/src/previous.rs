//! The release before this one on the schema of this one. Its binary is built here from its own files; what then happens between the two
//! is the work of `peers/previous.rs` of the server's tests.

use crate::{ChoreError, root, testing};
use cargo_metadata::MetadataCommand;
use mana_platform::migrate::WORKS_FROM;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release before this one, by the commit that its tag names. Whoever has made a release writes its commit here, in the first change
/// after it. There was none yet: this stands for the first.
const RELEASE: &str = "630852c17d93edefeafba77ce2e2ba2934d16d56";

const STORY: &str = "previous::";

/// Builds that release, and lets its servers go on while this one's binary migrates and takes their places.
pub(crate) fn run() -> Result<String, ChoreError> {
    fetch()?;
    let target = MetadataCommand::new().current_dir(root()).no_deps().exec()?.target_directory;
    let files = unpack(&target.join("previous").into_std_path_buf())?;
    let newest = newest_migration(&files)?;
    if newest != WORKS_FROM {
        return Err(ChoreError::WorksFrom { newest, says: WORKS_FROM });
    }
    let binary = build(&files, target.as_std_path())?;
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--package", "mana-core-auth", "--features", "peers", "--test", "peers"]);
    cargo.args(["--", STORY, "--ignored", "--nocapture"]).env("MANA_PREVIOUS_BINARY", binary);
    if testing::pass(&mut cargo, &[STORY])? {
        Ok("previous: the release before goes on while this one takes its place".to_owned())
    } else {
        Err(ChoreError::Previous)
    }
}

/// Makes sure that its commit is here. A shallow clone may lack it.
fn fetch() -> Result<(), ChoreError> {
    if is_here()? {
        return Ok(());
    }
    // What does not work shows in what is still missing.
    Command::new("git").args(["fetch", "--quiet", "--unshallow", "--tags"]).current_dir(root()).status()?;
    if is_here()? { Ok(()) } else { Err(ChoreError::NoRelease(RELEASE)) }
}

fn is_here() -> Result<bool, ChoreError> {
    let commit = format!("{RELEASE}^{{commit}}");
    let found = Command::new("git").args(["cat-file", "-e", &commit]).current_dir(root()).output()?;
    Ok(found.status.success())
}

/// Its files, in a folder of their own; they are there already if it was run before.
fn unpack(folder: &Path) -> Result<PathBuf, ChoreError> {
    let place = folder.join(RELEASE);
    if place.exists() {
        return Ok(place);
    }
    std::fs::create_dir_all(folder)?;
    // Named when it is whole.
    let unfinished = tempfile::tempdir_in(folder)?;
    let (archive, files) = (unfinished.path().join("files.tar"), unfinished.path().join("files"));
    std::fs::create_dir(&files)?;
    let mut git = Command::new("git");
    git.args(["archive", "--format=tar", "--output"]).arg(&archive).arg(RELEASE).current_dir(root());
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--file"]).arg(&archive).arg("--directory").arg(&files);
    if !git.status()?.success() || !tar.status()?.success() {
        return Err(ChoreError::NoRelease(RELEASE));
    }
    std::fs::rename(files, &place)?;
    Ok(place)
}

/// What a server of that release must be let serve on: the schema that it knows itself.
fn newest_migration(files: &Path) -> Result<i64, ChoreError> {
    let numbers = std::fs::read_dir(files.join("migrations"))?.map(|entry| {
        let name = entry?.file_name();
        Ok(name.to_string_lossy().split('_').next().and_then(|number| number.parse().ok()).unwrap_or(0))
    });
    Ok(numbers.collect::<Result<Vec<i64>, std::io::Error>>()?.into_iter().max().unwrap_or(0))
}

/// Its binary. What both releases depend on is built once, because they build in one folder. There, cargo tells packages apart by where they
/// are below the root of their workspace, so the crates of both would take each other's place, if they were not built in different ways. And
/// finished programs are named alike: they go elsewhere.
fn build(sources: &Path, target: &Path) -> Result<PathBuf, ChoreError> {
    let finished = target.join("previous");
    let crates = MetadataCommand::new().current_dir(sources).no_deps().exec()?.packages;
    let other_way = crates.iter().map(|package| format!("profile.dev.package.{}.debug=false", package.name));
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--locked", "--package", "mana-core-auth", "--bin", "mana-core-auth"])
        .args(other_way.flat_map(|setting| ["--config".to_owned(), setting]))
        .current_dir(sources)
        .env("CARGO_BUILD_BUILD_DIR", target)
        .env("CARGO_TARGET_DIR", &finished)
        // It names its own.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env("SQLX_OFFLINE", "true")
        .status()?;
    if built.success() { Ok(finished.join("debug/mana-core-auth")) } else { Err(ChoreError::PreviousBuild) }
}
