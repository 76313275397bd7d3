//! What one of everything costs that a request, or a reload, is made of: instructions, allocations, nanoseconds.
//!
//! ```text
//! cargo bench                                             all benches: this one, and what memory is held (`cache`, `weights`)
//! cargo bench --bench costs                               this table, all of it
//! cargo bench --bench costs -- WORD...                    only what has one of these words in its name
//! cargo bench --bench costs -- --save FILE                keep the numbers
//! cargo bench --bench costs -- --baseline FILE            compare with what was kept; fails where something costs 2 % more
//! cargo bench --bench costs -- --profile FOLDER WORD      keep what callgrind wrote, for callgrind_annotate
//! ```
//!
//! README.md beside this folder says how to read it.

#![expect(clippy::print_stdout, reason = "it reports to a person")]

mod auth;
mod cache;
mod callgrind;
mod case;
mod clock;
mod documents;
mod limits;
mod records;
mod requests;
mod routes;
mod snapshots;
mod table;

use case::Case;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use table::{Row, Table};

// As in the binary that is shipped; what callgrind sees of it is how often it is asked.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What one of everything costs: instructions, allocations, nanoseconds.
#[derive(Parser)]
struct Options {
    /// Only what has one of these in its name.
    words: Vec<String>,
    /// Keep the numbers in this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare with the numbers in this file; fail where instructions or allocations are over 2 % more.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Count no instructions: all is done in a few seconds.
    #[arg(long)]
    quick: bool,
    /// Keep what callgrind wrote in this folder, one file for each row.
    #[arg(long, value_name = "FOLDER")]
    profile: Option<PathBuf>,
    /// Under callgrind: do the work that is to be counted, and nothing else.
    #[arg(long, hide = true)]
    counted: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(why) => {
            println!("costs: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let is_wanted = |case: &Case| {
        options.words.is_empty() || options.words.iter().any(|word| case.name.contains(word.as_str()))
    };
    let cases: Vec<Case> = all().into_iter().filter(is_wanted).collect();
    if options.counted {
        return callgrind::be_counted(&cases).map(|()| ExitCode::SUCCESS);
    }
    let before = options.baseline.as_deref().map(Table::read).transpose()?;
    let counts = match options.quick {
        true => Vec::new(),
        false => callgrind::count(&options.words, options.profile.as_deref())?,
    };
    let mut counts = counts.into_iter();
    let mut table = Table::default();
    for case in &cases {
        let nanoseconds = clock::measure(case).map_err(|why| format!("{}: {why}", case.name))?;
        table.rows.push(Row { what: case.name.clone(), counts: counts.next(), nanoseconds });
    }
    table.print(before.as_ref());
    if let Some(path) = &options.save {
        table.write(path)?;
    }
    let worse = before.as_ref().map(|before| table.worse_than(before)).unwrap_or_default();
    if !worse.is_empty() {
        println!("\nover 2 % more than before: {}", worse.join(", "));
    }
    Ok(if worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn all() -> Vec<Case> {
    let parts = [
        requests::cases(),
        routes::cases(),
        limits::cases(),
        auth::cases(),
        cache::cases(),
        records::cases(),
        snapshots::cases(),
    ];
    parts.into_iter().flatten().collect()
}
