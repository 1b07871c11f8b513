//! `sync`: what the disk itself takes to keep a message: a bare write and fdatasync, again and again.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::clock::{from_seconds, nanos};
use crate::latency::Latency;
use crate::method::Envelope;
use crate::report::Report;
use crate::stamp::{Content, Stamp};
use crate::trouble::Trouble;

/// Where and how much.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Sync {
    /// A folder on the disk that the broker uses
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Octets of a body; written are the frames that publish it
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// How long
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// A label for the report
    #[arg(long, default_value = "disk")]
    pub(crate) name: String,
    /// A label for the report
    #[arg(long, default_value = "")]
    pub(crate) scenario: String,
}

/// Room that the second half writes over.
const REUSED: u64 = 16 << 20;

/// First appends to a growing file, then writes over a file that has its blocks.
pub(crate) fn sync(options: &Sync) -> Result<Report, Trouble> {
    let mut message = Vec::new();
    let content = Content::new(options.size, 1);
    Envelope::new("", "load-000001-0", options.size, true)
        .append(&mut message, |out| content.append(out, Stamp::new(nanos(), 0, 0)));
    let path = options.dir.join(format!("portolan-load-sync-{}", std::process::id()));
    let timed = timings(&path, &message, options.seconds / 2.0);
    let removed = std::fs::remove_file(&path);
    let (appending, overwriting) = timed?;
    removed?;
    let mut report = Report::default();
    report.text("command", "sync").text("name", &options.name).text("scenario", &options.scenario);
    report.count("bytes", message.len() as u64);
    report.percentiles("append", &appending).percentiles("overwrite", &overwriting);
    Ok(report)
}

fn timings(path: &Path, message: &[u8], seconds: f64) -> Result<(Latency, Latency), Trouble> {
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
    let appending = repeat(&mut file, message, seconds, u64::MAX)?;
    file.set_len(0)?;
    file.rewind()?;
    let block = vec![0x55; 1 << 20];
    for _ in 0..REUSED >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    file.rewind()?;
    let overwriting = repeat(&mut file, message, seconds, REUSED - message.len() as u64)?;
    Ok((appending, overwriting))
}

fn repeat(file: &mut File, message: &[u8], seconds: f64, wrap: u64) -> Result<Latency, Trouble> {
    let mut times = Latency::new();
    let end = nanos() + from_seconds(seconds);
    let mut at = 0;
    loop {
        let start = nanos();
        if start >= end {
            return Ok(times);
        }
        file.write_all(message)?;
        file.sync_data()?;
        times.note(nanos() - start);
        at += message.len() as u64;
        if at > wrap {
            at = 0;
            file.seek(SeekFrom::Start(0))?;
        }
    }
}
