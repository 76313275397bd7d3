//! Instructions and allocations, which are the same in every run: this program again, under valgrind's callgrind.
//!
//! Callgrind counts only while [`worked_under_callgrind`] runs and writes a file each time that returns: two for each case, in
//! their order. Allocations are the calls of mimalloc in the second; those in the first are since the program began.

use super::case::{Case, Work, text};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What one of something costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// Instructions in user space.
    pub instructions: f64,
    /// Calls for memory, for more of it included.
    pub allocations: f64,
}

/// As callgrind writes it. With wildcards it would either toggle or dump, not both.
const COUNTED: &str = "costs::callgrind::worked_under_callgrind";

/// Does the work of all cases, and tells how often each was done.
pub fn be_counted(cases: &[Case]) -> Result<(), String> {
    for case in cases {
        let mut work = case.warm().map_err(|why| format!("{}: {why}", case.name))?;
        for round in 0..FILES {
            worked_under_callgrind(&mut work, case.times * (round + 1), case.times);
            (work.settle)();
        }
        println!("{}", case.times);
    }
    Ok(())
}

/// Files that callgrind writes for each case.
const FILES: usize = 2;

/// Found by its name. Nothing is inlined into it but the loop.
#[inline(never)]
fn worked_under_callgrind(work: &mut Work, from: usize, times: usize) {
    work.repeat(from, times);
}

/// Counts all cases whose names have one of these words.
pub fn count(words: &[String], keep: Option<&Path>) -> Result<Vec<Counts>, String> {
    let folder = keep.unwrap_or(Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/costs")));
    fs::create_dir_all(folder).map_err(text)?;
    let this = std::env::current_exe().map_err(text)?;
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", folder.join("callgrind").display()))
        .arg(this)
        .arg("--counted")
        .args(words)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("valgrind cannot be started ({error}); --quick does without"))?;
    let told = String::from_utf8_lossy(&run.stdout);
    if !run.status.success() {
        return Err(format!("under valgrind: {}", told.lines().last().unwrap_or("it died")));
    }
    (1..)
        .zip(told.lines())
        .map(|(number, times)| {
            let written = folder.join(format!("callgrind.{}", number * FILES));
            let written =
                fs::read_to_string(&written).map_err(|error| format!("{}: {error}", written.display()))?;
            read(&written, times.parse().map_err(text)?)
        })
        .collect()
}

/// Reads a file of callgrind's (format 1): `fn=` names who spends, `cfn=` who is called, `calls=` how often.
fn read(written: &str, times: f64) -> Result<Counts, String> {
    let (mut caller, mut called, mut allocations, mut instructions) = ("", "", 0.0, None);
    for line in written.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            caller = name;
        } else if let Some(name) = line.strip_prefix("cfn=") {
            called = name;
        } else if let Some(calls) = line.strip_prefix("calls=") {
            // Mimalloc calls itself, too.
            if is_allocation(called) && !is_of_allocator(caller) {
                let calls = calls.split(' ').next().unwrap_or_default();
                allocations += calls.parse::<f64>().map_err(text)?;
            }
        } else if let Some(all) = line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")) {
            instructions = Some(all.trim().parse::<f64>().map_err(text)?);
        }
    }
    let instructions = instructions.ok_or("callgrind wrote no sum")?;
    Ok(Counts { instructions: instructions / times, allocations: allocations / times })
}

fn is_allocation(name: &str) -> bool {
    ["mi_malloc", "mi_zalloc", "mi_calloc", "mi_realloc"].iter().any(|begin| name.starts_with(begin))
}

fn is_of_allocator(name: &str) -> bool {
    name.starts_with("mi_") || name.starts_with("_mi_")
}
