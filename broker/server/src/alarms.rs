//! Watches memory and disk, and raises or clears the alarms that block publishers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portolan_core::alarms::{Alarms, Shortage};
use portolan_core::store::Space;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::config::Config;
use crate::process;
use crate::status::Status;

/// Time between two looks. A publisher at full speed adds some hundred megabytes in it.
const INTERVAL: Duration = Duration::from_millis(500);
/// An alarm is cleared when the value is better than its mark by one part in so many, lest it flap.
const HYSTERESIS: u64 = 32;

/// The alarms and a way to wait for a change of them.
#[derive(Default)]
pub struct AlarmBoard {
    alarms: Arc<Alarms>,
    changed: Notify,
}

impl AlarmBoard {
    /// The alarms, for those that only look.
    pub fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// Puts a shortage in force and wakes those who wait.
    pub fn set(&self, shortage: Shortage) {
        if self.alarms.set(shortage) {
            match shortage.reason() {
                Some(reason) => tracing::warn!(reason, "alarm: publishers are blocked"),
                None => tracing::info!("alarms cleared: publishers go on"),
            }
            self.changed.notify_waiters();
        }
    }

    /// Waits until the generation is another one than `seen`, and returns the shortage then.
    pub async fn changed(&self, seen: u64) -> Shortage {
        loop {
            // Enrolled before the look, so that no change falls between the two.
            let mut notified = std::pin::pin!(self.changed.notified());
            notified.as_mut().enable();
            if self.alarms.generation() != seen {
                return self.alarms.shortage();
            }
            notified.await;
        }
    }
}

/// The marks at which alarms are raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Memory of the process, in bytes.
    pub memory: u64,
    /// Free bytes on the disk.
    pub disk_free: u64,
    /// Where the disk is looked at.
    pub folder: PathBuf,
}

impl Marks {
    /// The marks that a configuration sets on this machine.
    pub fn of(config: &Config) -> Self {
        Self {
            memory: config.limits.memory.of(process::total_memory()),
            disk_free: config.limits.disk_free.0,
            folder: config.node.data_dir.clone(),
        }
    }

    /// Which shortages there are, given those that were in force.
    fn judge(&self, was: Shortage, memory: u64, disk_free: u64, space: Space) -> Shortage {
        let memory_mark = if was.memory { self.memory - self.memory / HYSTERESIS } else { self.memory };
        let disk_mark = if was.disk { self.disk_free + self.disk_free / HYSTERESIS } else { self.disk_free };
        Shortage { memory: memory >= memory_mark, disk: disk_free < disk_mark || space == Space::Low }
    }
}

/// Looks at memory and disk for as long as the node lives.
pub async fn watch(board: Arc<AlarmBoard>, marks: Marks, status: Arc<dyn Status>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let memory = process::memory().anonymous;
        // A file system that does not tell is no reason to stop publishers; the journal will say when it is full.
        let disk_free = process::disk_free(&marks.folder).unwrap_or(u64::MAX);
        board.set(marks.judge(board.alarms().shortage(), memory, disk_free, status.space()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_do_not_flap_at_their_marks() {
        let marks = Marks { memory: 3200, disk_free: 3200, folder: ".".into() };
        let judge = |was, memory, disk| marks.judge(was, memory, disk, Space::Plenty);
        let none = Shortage::default();
        let both = Shortage { memory: true, disk: true };
        assert_eq!(judge(none, 3199, 3200), none);
        assert_eq!(judge(none, 3200, 3199), both);
        assert_eq!(judge(both, 3150, 3250), both);
        assert_eq!(judge(both, 3099, 3300), none);
        assert_eq!(marks.judge(none, 0, 9999, Space::Low), Shortage { memory: false, disk: true });
    }

    #[tokio::test]
    async fn a_change_wakes_who_waits() {
        let board = Arc::new(AlarmBoard::default());
        let seen = board.alarms().generation();
        let waiter = tokio::spawn({
            let board = board.clone();
            async move { board.changed(seen).await }
        });
        board.set(Shortage { memory: true, disk: false });
        let woken = tokio::time::timeout(Duration::from_secs(10), waiter).await.unwrap().unwrap();
        assert!(woken.memory);
        // Whoever comes late sees it at once.
        assert!(board.changed(seen).await.memory);
    }
}
