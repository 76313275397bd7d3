//! The table: printed, kept, compared.

use super::callgrind::Counts;
use super::case::text;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// More than this share is a change for the worse.
const TOLERATED: f64 = 0.02;
/// Counts of the smallest things vary by so much whatever changes, since hash maps have other seeds in each run.
const NOISE: Counts = Counts { instructions: 4.0, allocations: 0.01 };

/// What costs how much.
pub struct Row {
    /// Name of the case.
    pub what: String,
    /// Unless nobody counted.
    pub counts: Option<Counts>,
    /// Time of the thread.
    pub nanoseconds: f64,
}

/// All of it.
#[derive(Default)]
pub struct Table {
    /// In the order of measuring.
    pub rows: Vec<Row>,
}

impl Table {
    /// Prints it, beside what was `before`.
    pub fn print(&self, before: Option<&Table>) {
        let widest = self.rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
        let title = format!("{:widest$} {:>14} {:>12} {:>14}", "", "instructions", "allocations", "ns");
        println!("{title}{}", if before.is_some() { "   × before" } else { "" });
        for row in &self.rows {
            let (instructions, allocations) = row.counts.map_or((String::new(), String::new()), |counts| {
                (format!("{:.0}", counts.instructions), short(counts.allocations))
            });
            print!("{:widest$} {instructions:>14} {allocations:>12} {:>14.1}", row.what, row.nanoseconds);
            let old = before.and_then(|before| before.counts(&row.what));
            match (old, row.counts) {
                (Some(old), Some(new)) => println!("   {:.3}", new.instructions / old.instructions.max(1.0)),
                _ => println!(),
            }
        }
    }

    /// Names of what costs more than `before` beyond what is tolerated.
    pub fn worse_than(&self, before: &Table) -> Vec<&str> {
        let is_more = |new: f64, old: f64, noise: f64| new > old * (1.0 + TOLERATED) + noise;
        let is_worse = |row: &&Row| match (row.counts, before.counts(&row.what)) {
            (Some(new), Some(old)) => {
                is_more(new.instructions, old.instructions, NOISE.instructions)
                    || is_more(new.allocations, old.allocations, NOISE.allocations)
            }
            _ => false,
        };
        self.rows.iter().filter(is_worse).map(|row| row.what.as_str()).collect()
    }

    fn counts(&self, what: &str) -> Option<Counts> {
        self.rows.iter().find(|row| row.what == what)?.counts
    }

    /// Keeps it: one line for each row, so that two files can be compared by eye.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let lines: Vec<String> =
            self.rows.iter().map(|row| format!("  {}: {}", json!(row.what), fields(row))).collect();
        fs::write(path, format!("{{\n{}\n}}\n", lines.join(",\n")))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads what [`Table::write`] wrote.
    pub fn read(path: &Path) -> Result<Table, String> {
        let wrong = |why: String| format!("{}: {why}", path.display());
        let written = fs::read(path).map_err(|error| wrong(text(error)))?;
        let rows: Map<String, Value> =
            serde_json::from_slice(&written).map_err(|error| wrong(text(error)))?;
        let row = |(what, fields): (String, Value)| {
            let number = |name: &str| fields.get(name).and_then(Value::as_f64);
            let counts = number("instructions").zip(number("allocations"));
            let counts = counts.map(|(instructions, allocations)| Counts { instructions, allocations });
            Row { counts, nanoseconds: number("ns").unwrap_or_default(), what }
        };
        Ok(Table { rows: rows.into_iter().map(row).collect() })
    }
}

fn fields(row: &Row) -> Value {
    let tenths = |number: f64| (number * 10.0).round() / 10.0;
    let mut fields = Map::new();
    if let Some(counts) = row.counts {
        fields.insert("instructions".to_owned(), json!(tenths(counts.instructions)));
        fields.insert("allocations".to_owned(), json!((counts.allocations * 100.0).round() / 100.0));
    }
    fields.insert("ns".to_owned(), json!(tenths(row.nanoseconds)));
    Value::Object(fields)
}

/// Allocations are nearly always a whole number.
fn short(number: f64) -> String {
    let written = format!("{number:.2}");
    written.trim_end_matches('0').trim_end_matches('.').to_owned()
}
