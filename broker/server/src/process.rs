//! What the operating system says about this process and grants it.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Memory of this process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident, as `ps` shows it.
    pub resident: u64,
    /// The part of it that is ours alone and not a view of a file, which the kernel can take back at any time.
    pub anonymous: u64,
}

/// Lifts the number of open files to what the administrator allows; returns the number in force.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    file_limit()
}

/// How many files this process may have open.
pub fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many it has.
pub fn open_files() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

/// Memory of this process now.
pub fn memory() -> ProcessMemory {
    parse_status(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn parse_status(status: &str) -> ProcessMemory {
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map_or(0, |kib| kib << 10)
    };
    ProcessMemory { resident: bytes("VmRSS:"), anonymous: bytes("RssAnon:") + bytes("RssShmem:") }
}

/// Processor time used by this process, in seconds.
pub fn cpu_seconds() -> f64 {
    let ticks = parse_stat(&fs::read_to_string("/proc/self/stat").unwrap_or_default());
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn parse_stat(stat: &str) -> u64 {
    // The second field is the program's name in parentheses and may hold anything, so count from its end.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Memory that this process could have: the machine's, or the least of the control groups that it is in.
pub fn total_memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text)).unwrap_or(u64::MAX);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_limit(&groups, Path::new("/sys/fs/cgroup")).unwrap_or(u64::MAX).min(machine)
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The least limit on the way from our group up to the root, version 2 (`0::/path`) or 1 (`n:memory:/path`).
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (root, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            c if c.split(',').any(|c| c == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            // "max" stands for none.
            let text = fs::read_to_string(root.join(group).join(file)).unwrap_or_default();
            least = text.trim().parse::<u64>().ok().into_iter().chain(least).min();
        }
    }
    least
}

/// Bytes that an ordinary user may still write to the file system of `folder`.
pub fn disk_free(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_texts() {
        let status =
            "Name:\tportolan\nVmRSS:\t    2048 kB\nRssAnon:\t    1024 kB\nRssFile:\t 1000 kB\nRssShmem:\t 24 kB\n";
        assert_eq!(parse_status(status), ProcessMemory { resident: 2048 << 10, anonymous: 1048 << 10 });
        assert_eq!(parse_stat("1 (a ) b) S 1 1 1 0 -1 4194560 10 0 0 0 30 12 0 0 20"), 42);
        assert_eq!(parse_meminfo("MemTotal:       16 kB\n"), Some(16 << 10));
        assert_eq!(parse_status(""), ProcessMemory::default());
        assert_eq!(parse_stat(""), 0);
    }

    #[test]
    fn the_least_limit_of_nested_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("pod/broker");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("pod/memory.max"), "1073741824\n").unwrap();
        assert_eq!(group_limit("0::/pod/broker\n", root.path()), Some(1 << 30));
        assert_eq!(group_limit("0::/\n", root.path()), None);
        fs::create_dir_all(root.path().join("memory")).unwrap();
        fs::write(root.path().join("memory/memory.limit_in_bytes"), "4096\n").unwrap();
        assert_eq!(group_limit("5:cpu,memory:/\n0::/\n", root.path()), Some(4096));
    }

    #[test]
    fn this_process_is_alive() {
        assert!(memory().resident > 0 && memory().anonymous > 0);
        assert!(total_memory() > memory().resident);
        assert!(open_files() > 0 && file_limit() >= open_files());
        assert!(disk_free(Path::new(".")).is_some());
    }
}
