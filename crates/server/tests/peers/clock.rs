//! The clock of one server, which can step while it runs.

use crate::process::{Home, Launch};
use std::fs;
use std::path::PathBuf;

/// As libfaketime gives it to a process: so many seconds beside the machine's. What counts intervals goes on evenly, as it
/// does when the time of a machine is set.
#[derive(Debug)]
pub(crate) struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right.
    pub(crate) fn new(home: &Home, name: &str) -> Self {
        let clock = Self { file: home.path().join(name) };
        clock.step_to(0);
        clock
    }

    /// So many seconds from the right time from now on; it takes a second until that is seen.
    pub(crate) fn step_to(&self, seconds: i64) {
        let whole = self.file.with_extension("new");
        fs::write(&whole, format!("{seconds:+}\n")).unwrap();
        // In one go: whoever reads half a number has another time.
        fs::rename(&whole, &self.file).unwrap();
    }

    /// A start that will go by this clock.
    pub(crate) fn give_to(&self, launch: Launch) -> Launch {
        launch
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
    }

    /// What has a program work two days ago.
    pub(crate) fn two_days_ago() -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", library()), ("FAKETIME", PathBuf::from("-2d"))]
    }
}

/// The variant for programs with threads.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    found.find(|library| library.exists()).expect("libfaketime is installed (apt-get install libfaketime)")
}
