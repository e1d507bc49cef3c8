//! Who has the processors, from /proc.

use crate::error::BenchError;
use crate::stage::Stage;
use crate::tally::as_number;
use std::fs;
use std::time::Instant;

/// Running totals, in clock ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    at: Instant,
    server: u64,
    postgres: u64,
    neighbours: u64,
    load: u64,
    busy: u64,
    waiting_for_disk: u64,
}

/// How many processors each had at the mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    pub(crate) server: f64,
    pub(crate) postgres: f64,
    /// A pooler, Redis.
    pub(crate) neighbours: f64,
    pub(crate) load: f64,
    /// Everybody else on the machine, and the kernel's work for nobody in particular.
    pub(crate) others: f64,
    pub(crate) idle: f64,
    /// The part of the idle time in which somebody waited for the disk.
    pub(crate) waiting_for_disk: f64,
}

impl Totals {
    pub(crate) fn now(stage: &Stage) -> Result<Self, BenchError> {
        let machine = fs::read_to_string("/proc/stat")?;
        let machine: Vec<u64> = machine
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|number| number.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already.
        let of = |places: &[usize]| places.iter().filter_map(|&place| machine.get(place)).sum();
        Ok(Self {
            at: Instant::now(),
            server: stage.servers().filter_map(|server| of_process(server.id())).sum(),
            postgres: of_family(stage.postgres.postmaster()?)?,
            neighbours: stage.neighbours.iter().filter_map(|neighbour| of_process(neighbour.id())).sum(),
            load: of_process(std::process::id()).unwrap_or_default(),
            busy: of(&[0, 1, 2, 5, 6, 7]),
            waiting_for_disk: of(&[4]),
        })
    }

    pub(crate) fn since(&self, earlier: &Self) -> Split {
        let ticks = as_number(rustix::param::clock_ticks_per_second());
        let time = (self.at - earlier.at).as_secs_f64();
        let share = |now: u64, then: u64| as_number(now.saturating_sub(then)) / ticks / time;
        let (server, postgres) = (share(self.server, earlier.server), share(self.postgres, earlier.postgres));
        let (neighbours, load) = (share(self.neighbours, earlier.neighbours), share(self.load, earlier.load));
        let busy = share(self.busy, earlier.busy);
        Split {
            server,
            postgres,
            neighbours,
            load,
            others: (busy - server - postgres - neighbours - load).max(0.0),
            idle: (as_number(processors()) - busy).max(0.0),
            waiting_for_disk: share(self.waiting_for_disk, earlier.waiting_for_disk),
        }
    }
}

/// How many this process may use.
pub(crate) fn processors() -> u64 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u64::try_from(count).unwrap_or(1)
}

/// The numbers of /proc/PID/stat behind the program's name, which may hold anything: parent, then user and system time of
/// itself, then of the children it has collected.
fn stat(pid: u32) -> Option<(u32, [u64; 4])> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse().ok();
    Some((fields.get(1)?.parse().ok()?, [number(11)?, number(12)?, number(13)?, number(14)?]))
}

fn of_process(pid: u32) -> Option<u64> {
    stat(pid).map(|(_, [user, system, ..])| user + system)
}

/// Of a process and its children, also those that it has collected.
fn of_family(parent: u32) -> Result<u64, BenchError> {
    let mut total = stat(parent).map_or(0, |(_, times)| times.iter().sum());
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some((found, [user, system, ..])) = stat(pid)
            && found == parent
        {
            total += user + system;
        }
    }
    Ok(total)
}
