//! The command line: one file for each command.

mod ask;
mod cache;
mod check;
mod config;
mod diff;
mod explain;
mod key;
mod output;
mod reload;
mod routes;
mod run;
mod split;
mod status;
mod upgrade;
mod upstream;
mod version;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// How a command ended; becomes the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// As asked.
    Ok = 0,
    /// The operation failed.
    Failed = 1,
    /// The arguments are wrong; of a command whose 1 says something else, that it failed.
    Trouble = 2,
    /// The configuration is invalid.
    Invalid = 3,
    /// The running gateway cannot be reached.
    Unreachable = 4,
    /// The running gateway refused: a token is missing or wrong.
    Refused = 5,
    /// The upgrade was aborted, and the old process still serves.
    Aborted = 6,
}

impl Exit {
    /// `diff` has found a difference.
    const DIFFERENT: Exit = Exit::Failed;
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An API gateway: one binary, one YAML file.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, arg_required_else_help = true, subcommand_required = true, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

const AFTER: &str = "\
Start with:
  tollgate config init > tollgate.yaml                           a small configuration that works
  tollgate check -c tollgate.yaml                                everything that is wrong with it
  tollgate explain -c tollgate.yaml GET http://localhost/hello   what would become of a request
  tollgate run -c tollgate.yaml                                  serves until Ctrl-C
  curl localhost:8080/hello                                      in another terminal

While it runs:
  export TOLLGATE_ADMIN=http://127.0.0.1:9900   where `admin.bind` says; or --admin each time
  tollgate status                               is it well, and its upstreams
  tollgate diff --live                          what the changed file would change
  tollgate reload                               serve it

`tollgate COMMAND --help` tells more of each, with examples.
Exit codes: 0 ok, 1 failed, 2 usage, 3 configuration invalid, 4 gateway not reached, 5 refused, 6 upgrade aborted. \
Data goes to stdout, talk to stderr.";

/// Options of every command.
#[derive(Clone, Debug, Args)]
struct Global {
    /// Say more; twice says everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say less: only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// No colours, as with the variable NO_COLOR
    #[arg(long, global = true)]
    no_color: bool,
}

/// The configuration file.
#[derive(Clone, Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "TOLLGATE_CONFIG",
        default_value = "/etc/tollgate/tollgate.yaml"
    )]
    config: PathBuf,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Text for people, which may change with any release
    #[default]
    Human,
    /// JSON for programs
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway in the foreground
    #[command(after_help = run::AFTER)]
    Run(run::Run),
    /// Check a configuration and report everything that is wrong with it
    #[command(after_help = check::AFTER)]
    Check(check::Check),
    /// Tell what would become of a request, step by step, without sending it
    #[command(after_help = explain::AFTER)]
    Explain(explain::Explain),
    /// List the routes in the order in which they are tried
    #[command(after_help = routes::AFTER)]
    Routes(routes::Routes),
    /// Show the configuration, its schema, its reference, or write a first one
    #[command(subcommand, after_help = config::AFTER)]
    Config(config::Config),
    /// Let the running gateway read its configuration again
    #[command(after_help = reload::AFTER)]
    Reload(reload::Reload),
    /// Replace the running binary without losing a connection
    #[command(after_help = upgrade::AFTER)]
    Upgrade(upgrade::Upgrade),
    /// Show what differs between two configurations, or what a reload would change
    #[command(after_help = diff::AFTER)]
    Diff(diff::Diff),
    /// Show the shares of splits in the running gateway, or change them
    #[command(after_help = split::AFTER)]
    Split(split::Split),
    /// Purge stored answers, or show how many there are
    #[command(after_help = cache::AFTER)]
    Cache(cache::Cache),
    /// Make keys for consumers
    #[command(after_help = key::AFTER)]
    Key(key::Key),
    /// Show the targets of the running gateway, drain them, change their weights
    #[command(subcommand, after_help = upstream::AFTER)]
    Upstream(upstream::Upstream),
    /// Show how the running gateway is
    #[command(after_help = status::AFTER)]
    Status(status::Status),
    /// Print the version
    Version(version::Version),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example: tollgate completions bash > /usr/share/bash-completion/completions/tollgate"
    )]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

/// Reads the arguments and runs one command. A usage error ends the process with 2.
pub fn main() -> ExitCode {
    let Cli { command, global } = Cli::parse();
    let exit = match command {
        Command::Run(run) => run.run(&global),
        Command::Check(check) => check.run(&global),
        Command::Explain(explain) => explain.run(&global),
        Command::Routes(routes) => routes.run(&global),
        Command::Config(config) => config.run(&global),
        Command::Reload(reload) => reload.run(),
        Command::Upgrade(upgrade) => upgrade.run(),
        Command::Diff(diff) => diff.run(&global),
        Command::Split(split) => split.run(),
        Command::Cache(cache) => cache.run(),
        Command::Key(key) => key.run(&global),
        Command::Upstream(upstream) => upstream.run(&global),
        Command::Status(status) => status.run(&global),
        Command::Version(version) => version.run(),
        Command::Completions { shell } => completions(shell),
    };
    exit.into()
}

fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}
