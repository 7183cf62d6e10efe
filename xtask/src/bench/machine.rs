//! What it was measured on.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::Result;
use serde::Serialize;

use super::options::{Common, Storage};
use crate::process;

/// The machine, as far as figures depend on it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) date: String,
    pub(super) cores: usize,
    pub(super) processor: String,
    pub(super) memory_gib: f64,
    pub(super) kernel: String,
    pub(super) slapd: String,
    pub(super) ejabberd: String,
    pub(super) disk: String,
    /// Processes that wanted to run, in the minute before: whether the machine was quiet.
    pub(super) load_average: String,
}

/// Describes this machine at this moment.
pub(super) fn describe(common: &Common) -> Result<Machine> {
    let line_of = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let first_word = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.split_whitespace().next().unwrap_or("unknown").to_owned()
    };
    let memory_kib = line_of("/proc/meminfo", "MemTotal").unwrap_or_default();
    let memory_kib: f64 = memory_kib.trim_end_matches(" kB").parse().unwrap_or_default();
    let disk = common.dir(Storage::Disk);
    let disk = process::output(Command::new("df").args(["--output=source,fstype"]).arg(disk))?;
    let disk = disk.lines().last().unwrap_or_default();
    Ok(Machine {
        date: process::output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?.trim().to_owned(),
        cores: std::thread::available_parallelism()?.get(),
        processor: line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
        memory_gib: (memory_kib / f64::from(1 << 20) * 10.0).round() / 10.0,
        kernel: first_word("/proc/sys/kernel/osrelease"),
        slapd: version("slapd"),
        ejabberd: version("ejabberd"),
        disk: disk.split_whitespace().collect::<Vec<_>>().join(" "),
        load_average: first_word("/proc/loadavg"),
    })
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, cores, processor, memory_gib, kernel, slapd, ejabberd, disk, load_average } = self;
        write!(
            formatter,
            "{date}: {cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, disk {disk}, slapd {slapd}, \
             ejabberd {ejabberd}; load average before: {load_average}."
        )
    }
}

fn version(package: &str) -> String {
    let version = process::output(Command::new("dpkg-query").args(["-W", "-f=${Version}", package]));
    version.unwrap_or_else(|_| "unknown".to_owned())
}
