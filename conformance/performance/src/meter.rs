//! What a broker uses of the machine: processor time and memory of its processes, as /proc tells.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use rustix::param::{clock_ticks_per_second, page_size};

use crate::clock::{nanos, seconds_between};

/// A broker has come to rest when its memory has not changed for so long. Allocators keep for about a second what was
/// freed last.
const REST: Duration = Duration::from_millis(1500);
/// Changes of its memory that count as none: a garbage collector never rests altogether.
const STIR: u64 = 128 << 10;
/// A broker that does not come to rest is taken as it is after this time.
const RESTLESS: Duration = Duration::from_secs(10);

/// The processes of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    roots: Vec<u32>,
}

/// What they had used at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) at: u64,
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
    pub(crate) rss: u64,
}

impl Usage {
    /// Processor seconds.
    pub(crate) fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// What was used between two moments; `rss` stays that of the later one.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self { user_s: self.user_s - earlier.user_s, system_s: self.system_s - earlier.system_s, ..*self }
    }

    /// Processor seconds per second since `earlier`.
    pub(crate) fn cores_since(&self, earlier: &Self) -> f64 {
        self.since(earlier).cpu_s() / seconds_between(earlier.at, self.at)
    }
}

impl Broker {
    /// The processes `roots` and all that they start.
    pub(crate) fn new(roots: &[u32]) -> Self {
        Self { roots: roots.to_vec() }
    }

    /// What they use now; `None` if none is there.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let mut all = BTreeSet::new();
        let mut fresh = self.roots.clone();
        while let Some(pid) = fresh.pop() {
            if all.insert(pid) {
                fresh.extend(children(pid));
            }
        }
        let used: Vec<Usage> = all.into_iter().filter_map(of_process).collect();
        let sum = |of: fn(&Usage) -> f64| used.iter().map(of).sum::<f64>();
        (!used.is_empty()).then(|| Usage {
            at: nanos(),
            user_s: sum(|u| u.user_s),
            system_s: sum(|u| u.system_s),
            rss: used.iter().map(|u| u.rss).sum(),
        })
    }

    /// What they use once their memory has come to rest. Growth is counted from there: what logging in for the first
    /// time, or declaring, left to be reused would hide that much of it.
    pub(crate) fn usage_at_rest(&self) -> Option<Usage> {
        let began = Instant::now();
        let (mut known, mut since) = (self.usage()?, began);
        while since.elapsed() < REST && began.elapsed() < RESTLESS {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.usage()?;
            if now.rss.abs_diff(known.rss) > STIR {
                (known, since) = (now, Instant::now());
            }
        }
        self.usage()
    }
}

/// What this process has used.
pub(crate) fn own() -> Usage {
    of_process(std::process::id()).unwrap_or_default()
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

fn of_process(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold anything; what follows its last parenthesis is numbers, the first of them field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let seconds =
        |field: usize| Some(fields.get(field - 3)?.parse::<u64>().ok()? as f64 / clock_ticks_per_second() as f64);
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(Usage {
        at: nanos(),
        // Fields 14 to 17: own time, and that of children who ended.
        user_s: seconds(14)? + seconds(16)?,
        system_s: seconds(15)? + seconds(17)?,
        rss: resident * page_size() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_memory_and_its_children_count() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let me = std::process::id();
        assert!(children(me).contains(&child.id()));
        let both = Broker::new(&[me]).usage().unwrap();
        assert!(both.rss > of_process(child.id()).unwrap().rss);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
