//! Real Redis servers on ephemeral ports: killed, paused and started again by tests, gone when dropped.

use super::ports::Reserved;
use super::{DEADLINE, assert_eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// A `redis-server` process, which must be installed. Its port stays its own while it is down.
pub struct Redis {
    reserved: Reserved,
    args: Vec<String>,
    dir: tempfile::TempDir,
    child: Mutex<Option<Child>>,
}

impl Redis {
    /// A server that keeps everything in memory.
    pub fn start() -> Self {
        Redis::with(&[])
    }

    /// A server with further settings, such as `--requirepass x`.
    pub fn with(args: &[&str]) -> Self {
        let redis = Redis::down(args);
        redis.up();
        redis
    }

    /// One that does not run yet.
    pub fn down(args: &[&str]) -> Self {
        Redis {
            reserved: Reserved::any(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            dir: tempfile::Builder::new().prefix("tollgate-redis-").tempdir().unwrap(),
            child: Mutex::new(None),
        }
    }

    /// Starts it and waits until it answers.
    pub fn up(&self) {
        let mut command = Command::new("redis-server");
        if self.args.first().is_none_or(|first| !first.starts_with('/')) {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        command.args(&self.args).args(["--bind", "127.0.0.1", "--port", &self.port().to_string(), "--dir"]);
        command.arg(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        *self.child.lock().unwrap() = Some(command.spawn().expect("redis-server is installed"));
        assert_eventually(DEADLINE, "redis-server answers", || self.answers());
    }

    pub fn port(&self) -> u16 {
        self.reserved.addr().port()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Ends it at once; nothing is kept.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it without a word to its clients, whose connections stay open.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.lock().unwrap();
        let pid = child.as_ref().expect("redis-server runs").id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    /// What `redis-cli` says to a command.
    pub fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port().to_string()]).args(args);
        let output = command.stdin(Stdio::null()).output().expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Whether it says anything, be it that a password is missing.
    fn answers(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(self.reserved.addr())?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            stream.read_exact(&mut [0])
        };
        ask().is_ok()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
