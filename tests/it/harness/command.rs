//! One run of a tollgate command that ends by itself.

use std::path::Path;
use std::process::{Command, Stdio};

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }
}

/// The binary under test, with nothing of the developer's own settings in its environment.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_remove("TOLLGATE_CONFIG").env_remove("CREDENTIALS_DIRECTORY").env("NO_COLOR", "1");
    command.stdin(Stdio::null());
    command
}

/// Runs a command in the root of the repository.
pub fn tollgate(args: &[&str]) -> Ran {
    tollgate_in(Path::new(env!("CARGO_MANIFEST_DIR")), &[], args)
}

/// Runs a command in a folder, with additional environment variables.
pub fn tollgate_in(folder: &Path, env: &[(String, String)], args: &[&str]) -> Ran {
    let output = binary().args(args).current_dir(folder).envs(env.iter().cloned()).output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
