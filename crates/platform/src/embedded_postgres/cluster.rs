//! The data of a server: set up whole or not at all, and free of an earlier server.

use super::account::{Account, command_as, give_to};
use super::error::{failed, io_error};
use super::process::{command_line, poll, signal};
use super::{Durability, EmbeddedPostgresError as Error, Options, SUPERUSER, folder, programs};
use secrecy::SecretString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

/// What the name of a cluster begins with until it is whole; the process that makes it follows.
const UNFINISHED: &str = "cluster.new.";
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(10);

/// What is decided before the server starts.
#[derive(Debug)]
pub(super) struct Site {
    _lock: File,
    pub(super) folder: PathBuf,
    pub(super) programs: PathBuf,
    pub(super) account: Option<Account>,
    pub(super) durability: Durability,
    pub(super) throw_away: bool,
}

impl Site {
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        let folder = std::path::absolute(&options.folder).map_err(io_error("find", &options.folder))?;
        let account = Account::for_folder(&folder);
        let folder = folder::prepare(&folder, account.as_ref(), options.throw_away)?;
        Ok(Self {
            _lock: folder::lock(&folder)?,
            programs: programs::find(&folder)?,
            folder,
            account,
            durability: options.durability,
            throw_away: options.throw_away,
        })
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    /// Where the running server notes its process and its state.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.folder.join("cluster/postmaster.pid")
    }

    /// The rename at the end makes the cluster appear whole or not at all, and the password is on disk
    /// before it, so no crash leaves a cluster that nobody can log in to.
    pub(super) fn set_up(&self, secret: &dyn Fn(&mut [u8])) -> Result<(), Error> {
        let refused = io_error("set up the data in", &self.folder);
        self.write_password(secret).map_err(refused)?;
        self.remove_unfinished();
        let unfinished = self.folder.join(format!("{UNFINISHED}{}", std::process::id()));
        let output = self.run_initdb(&unfinished).map_err(refused)?;
        if !output.status.success() {
            let folder = self.folder.display();
            let sentence = format!("PostgreSQL can't set up {folder}. Mend what it says, then start again");
            return Err(failed(&sentence, &output.stderr));
        }
        fs::rename(&unfinished, self.cluster()).map_err(refused)
    }

    /// What a set-up that was killed left behind. Its `initdb` may still be writing there, so every set-up has a place
    /// of its own, and what can't be removed now is removed by the next.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn run_initdb(&self, unfinished: &Path) -> io::Result<Output> {
        folder::make_private(unfinished, self.account.as_ref())?;
        let mut initdb = command_as(self.programs.join("initdb"), self.account.as_ref());
        initdb.arg("--pgdata").arg(unfinished);
        initdb.arg("--pwfile").arg(self.folder.join("password"));
        initdb.args(["--auth=scram-sha-256", "--username", SUPERUSER]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-instructions"]);
        if self.durability == Durability::None {
            initdb.arg("--no-sync");
        }
        initdb.output()
    }

    /// Made anew rather than overwritten, so that its mode and owner are right from the first byte. It
    /// belongs to the account because `initdb` has to read it.
    fn write_password(&self, secret: &dyn Fn(&mut [u8])) -> io::Result<()> {
        let mut bytes = [0; 32];
        secret(&mut bytes);
        let path = self.folder.join("password");
        let _ = fs::remove_file(&path);
        let mut new = File::options();
        let mut file = new.write(true).create_new(true).mode(0o600).open(&path)?;
        writeln!(file, "{}", bytes.map(|byte| format!("{byte:02x}")).concat())?;
        file.sync_all()?;
        give_to(&path, self.account.as_ref())
    }

    pub(super) fn password(&self) -> Result<SecretString, Error> {
        let path = self.folder.join("password");
        let password = fs::read_to_string(&path).map_err(io_error("read", &path))?;
        Ok(SecretString::from(password.trim()))
    }

    /// Ends a server that still runs on the cluster. It is nobody's, as the lock is ours: its watchdog was
    /// killed, or is just stopping it.
    pub(super) fn end_predecessor(&self) -> Result<(), Error> {
        let Some(pid) = noted_pid(&self.pid_file()) else {
            return Ok(());
        };
        let cluster = self.cluster();
        let is_server = || command_line(pid).map(|line| line.contains(&*cluster.to_string_lossy()));
        if is_server() == Some(true) {
            signal("INT", &pid.to_string());
            if !poll(PREDECESSOR_LIMIT, || is_server() != Some(true)) {
                let problem = format!("an earlier PostgreSQL still runs on {}", cluster.display());
                return Err(Error::Failed(format!("{problem}. Stop it with `kill -QUIT {pid}`")));
            }
        } else if is_server() == Some(false) {
            // The number went to another process, or to one that is dead and never collected, as happens in
            // containers. PostgreSQL would take either for a running server.
            fs::remove_file(self.pid_file()).map_err(io_error("remove", &self.pid_file()))?;
        }
        Ok(())
    }
}

pub(super) fn noted_pid(pid_file: &Path) -> Option<u32> {
    let text = fs::read_to_string(pid_file).ok()?;
    text.lines().next()?.trim().parse().ok()
}
