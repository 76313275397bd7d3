//! What the kernel tells of this process.

use prometheus::{Counter, Gauge, IntGauge};

/// What the kernel knows of this process, under the names every exporter uses.
pub(super) struct Process {
    pub(super) cpu: Counter,
    pub(super) resident: IntGauge,
    pub(super) virtual_memory: IntGauge,
    pub(super) threads: IntGauge,
    pub(super) open_fds: IntGauge,
    pub(super) max_fds: IntGauge,
    pub(super) start_time: Gauge,
}

/// Unit of times in /proc/PID/stat: a hundredth of a second, fixed in Linux' user interface.
const TICKS: f64 = 100.0;

impl Process {
    /// Brings the values up to date. What cannot be read stays as it was.
    pub(super) fn read(&self) {
        let stat = proc_file("self/stat");
        // proc_pid_stat(5): the second field is a name that may hold anything; the third follows its last parenthesis.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
        if let (Some(user), Some(system)) = (ticks(14), ticks(15)) {
            self.cpu.inc_by((user + system - self.cpu.get()).max(0.0));
        }
        if let (Some(since_boot), Some(boot)) = (ticks(22), number_after(&proc_file("stat"), "btime")) {
            self.start_time.set(boot as f64 + since_boot);
        }
        let status = proc_file("self/status");
        let set = |gauge: &IntGauge, value: Option<i64>| value.into_iter().for_each(|value| gauge.set(value));
        set(&self.resident, number_after(&status, "VmRSS:").map(|kib| kib * 1024));
        set(&self.virtual_memory, number_after(&status, "VmSize:").map(|kib| kib * 1024));
        set(&self.threads, number_after(&status, "Threads:"));
        set(&self.max_fds, number_after(&proc_file("self/limits"), "Max open files"));
        let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count());
        // Reading the directory opened one more.
        set(&self.open_fds, open.and_then(|count| i64::try_from(count.saturating_sub(1)).ok()));
    }
}

fn proc_file(path: &str) -> String {
    std::fs::read_to_string(std::path::Path::new("/proc").join(path)).unwrap_or_default()
}

/// The number that follows `name` at the start of a line.
fn number_after(text: &str, name: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}
