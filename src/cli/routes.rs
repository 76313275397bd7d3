//! `tollgate routes`: the routes in the order in which they are tried.

use super::output::{data, fail, findings, json, nothing};
use super::{ConfigFile, Exit, Global, Output};
use crate::prepare::{Prepared, prepare};
use crate::route::Rule;
use crate::snapshot::Snapshot;
use clap::Args;
use serde::Serialize;

pub(super) const AFTER: &str = "\
The first route that matches answers. COND is how many conditions on headers and query it has, PRIO its priority, \
AT where it is written. `tollgate explain` tells which one a request gets, and why not another.

Examples:
  tollgate routes -c tollgate.yaml
  tollgate routes --api shop -o json";

/// Arguments of `routes`.
#[derive(Debug, Args)]
pub(super) struct Routes {
    #[command(flatten)]
    file: ConfigFile,
    /// Only this API
    #[arg(long, value_name = "NAME")]
    api: Option<String>,
    /// For people or for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Row {
    priority: i32,
    host: String,
    methods: String,
    path: String,
    conditions: usize,
    route: String,
    to: String,
    at: String,
}

impl Row {
    fn new(rule: &Rule, snapshot: &Snapshot, prepared: &Prepared) -> Option<Row> {
        let route = snapshot.routes.get(rule.route as usize)?;
        Some(Row {
            priority: rule.priority,
            host: rule.host.to_string(),
            methods: rule.methods.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string),
            path: rule.path.to_string(),
            conditions: rule.conditions(),
            route: route.id.to_string(),
            to: prepared.loaded.as_ref()?.mask(&route.action.describe()),
            at: prepared.sources.line(route.at),
        })
    }

    fn cells(&self) -> [String; 8] {
        let conditions = if self.conditions == 0 { String::new() } else { format!("+{}", self.conditions) };
        let priority = if self.priority == 0 { String::new() } else { self.priority.to_string() };
        [&self.host, &self.methods, &self.path, &conditions, &priority, &self.route, &self.to, &self.at]
            .map(Clone::clone)
    }
}

impl Routes {
    pub(super) fn run(&self, global: &Global) -> Exit {
        let prepared = match prepare(&self.file.config) {
            Ok(prepared) => prepared,
            Err(error) => return fail(&error),
        };
        let Some(snapshot) = &prepared.snapshot else {
            findings(&prepared.issues, &prepared.sources, global, "");
            return Exit::Invalid;
        };
        let known = |name: &String| snapshot.routes.iter().any(|route| *route.api == **name);
        if let Some(name) = self.api.as_ref().filter(|name| !known(name)) {
            return nothing(
                "API",
                name,
                snapshot.routes.iter().map(|route| &*route.api).fold(Vec::new(), once).into_iter(),
            );
        }
        let wanted = |rule: &&Rule| match (&self.api, snapshot.routes.get(rule.route as usize)) {
            (Some(api), Some(route)) => *route.api == **api,
            _ => true,
        };
        let rules = snapshot.table.order().iter().filter(wanted);
        let rows: Vec<Row> = rules.filter_map(|rule| Row::new(rule, snapshot, &prepared)).collect();
        match self.output {
            Output::Json => json(&rows),
            Output::Human => data(&table(&rows)),
        }
    }
}

/// Adds a name unless it is there.
fn once<'n>(mut names: Vec<&'n str>, name: &'n str) -> Vec<&'n str> {
    if !names.contains(&name) {
        names.push(name);
    }
    names
}

fn table(rows: &[Row]) -> String {
    let head = ["HOST", "METHODS", "PATH", "COND", "PRIO", "ROUTE", "TO", "AT"].map(str::to_owned);
    let lines: Vec<[String; 8]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let mut widths = [0; 8];
    for line in &lines {
        widths.iter_mut().zip(line).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
