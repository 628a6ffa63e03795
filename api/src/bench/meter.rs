//! Meter: processor time, memory and bytes written of this process, and what others took of the machine meanwhile.
//!
//! It reads `/proc`. Where there is none, its figures are left out.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

/// Ticks a second in `/proc`; Linux shows 100 to programs on every processor it runs on.
const TICKS: f64 = 100.0;

/// Which processes besides this one are ours: the root of a tree, as a database server's.
pub type Beside = Option<u32>;

/// A span that is being measured.
pub struct Meter {
    beside: Beside,
    began: Instant,
    before: Option<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    own: f64,
    beside: f64,
    machine: f64,
    written: f64,
}

/// What a span came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metered {
    /// How long it was.
    pub wall: Duration,
    /// Processor seconds of this process.
    pub cpu: Option<f64>,
    /// Processor seconds of those beside it.
    pub cpu_beside: Option<f64>,
    /// Most memory that was resident, in MB.
    pub peak_mb: Option<f64>,
    /// Bytes that this process sent to the disk.
    pub written: Option<f64>,
    /// The part of the machine that others took, 0 to 1.
    pub others: Option<f64>,
}

impl Meter {
    /// Begins a span.
    pub fn start(beside: Beside) -> Self {
        // Resets the peak; a kernel that does not let us shows that of the whole process.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self { before: Reading::now(beside), beside, began: Instant::now() }
    }

    /// Ends it.
    pub fn stop(self) -> Metered {
        let wall = self.began.elapsed();
        let after = Reading::now(self.beside);
        let (Some(before), Some(after)) = (self.before, after) else {
            return Metered { wall, ..Metered::default() };
        };
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let (own, beside) = (after.own - before.own, after.beside - before.beside);
        let others = (after.machine - before.machine - own - beside) / wall.as_secs_f64() / cores;
        Metered {
            wall,
            cpu: Some(own),
            cpu_beside: self.beside.map(|_| beside),
            peak_mb: status_mb("VmHWM:"),
            written: Some(after.written - before.written),
            others: Some(others.clamp(0.0, 1.0)),
        }
    }
}

impl Reading {
    fn now(beside: Beside) -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let machine: Vec<f64> =
            stat.lines().next()?.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        // All but idle and waiting for the disk.
        let idle = machine.get(3)? + machine.get(4)?;
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
        Some(Self {
            own: processor_seconds("self")?,
            beside: beside.map_or(0.0, tree_seconds),
            machine: (machine.iter().sum::<f64>() - idle) / TICKS,
            written: written.unwrap_or(0.0),
        })
    }
}

/// The fields of a process's `stat` behind its name; the first is its state, the second its parent.
fn stat(process: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Of the process and of the children it has waited for.
fn processor_seconds(process: &str) -> Option<f64> {
    let fields = stat(process)?;
    let ticks: f64 = fields.get(11..15)?.iter().flat_map(|field| field.parse::<f64>()).sum();
    Some(ticks / TICKS)
}

fn tree_seconds(root: u32) -> f64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0.0 };
    let names = processes.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.parse() == Ok(root) || parent(name) == Some(root))
        .filter_map(|name| processor_seconds(&name))
        .sum()
}

/// The parent of a process.
pub fn parent(process: &str) -> Option<u32> {
    stat(process)?.get(1)?.parse().ok()
}

/// Memory of this process that is resident now, in MB.
pub fn resident_mb() -> Option<f64> {
    status_mb("VmRSS:")
}

fn status_mb(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes / 1024.0)
}
