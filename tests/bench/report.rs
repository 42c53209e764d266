//! Figures for people.

use std::time::Duration;

/// Events or rows a second.
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// `41 k/s`.
pub(crate) fn per_second(rate: f64) -> String {
    if rate >= 10_000.0 { format!("{:.1} k/s", rate / 1000.0) } else { format!("{rate:.0} /s") }
}

pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// What a process holds now, and the most that it has held: lines of its status.
pub(crate) const RESIDENT: &str = "VmRSS:";
pub(crate) const PEAK: &str = "VmHWM:";

/// The memory of a process in MiB; none if it has ended.
pub(crate) fn memory_mib(pid: u32, line: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let text = status.lines().find_map(|found| found.strip_prefix(line))?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// The time that a process was on a core until now, its own and the kernel's for it.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    /// Linux counts in hundredths of a second towards programs, whatever it counts in itself.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS)
}

/// The value below which this share of the samples lies.
pub(crate) fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let last = samples.len().saturating_sub(1);
    let place = (last as f64 * share).round() as usize;
    samples.get(place).copied().unwrap_or_default()
}

/// A table as it stands in `docs/benchmarks.md`.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    println!("\n| {} |", head.join(" | "));
    println!("|{}", "---|".repeat(head.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}
