//! A running `tollgate run`, started on ephemeral ports and stopped when dropped.

use super::client::Client;
use super::command::{Ran, binary, tollgate_in};
use super::message::Response;
use super::{DEADLINE, eventually, raise_file_limit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How much of the access log of a failed test is shown.
const LAST_LINES: usize = 20;

/// What is needed to start a gateway: its configuration, files beside it, environment.
///
/// In the configuration and in the files `{{name}}` stands for what [`Plan::with`] says, `{{dir}}` for the folder they
/// are written to.
pub struct Plan {
    yaml: String,
    names: Vec<(String, String)>,
    files: Vec<(String, String)>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    dir: tempfile::TempDir,
}

/// A gateway that serves.
pub struct Gateway {
    child: Mutex<Child>,
    pid: Pid,
    addresses: HashMap<String, SocketAddr>,
    stdout: Lines,
    stderr: Lines,
    plan: Plan,
}

impl Plan {
    pub fn new(yaml: &str) -> Self {
        Plan {
            yaml: yaml.to_owned(),
            names: Vec::new(),
            files: Vec::new(),
            env: Vec::new(),
            args: Vec::new(),
            dir: tempfile::Builder::new().prefix("tollgate-test-").tempdir().unwrap(),
        }
    }

    /// Puts `value` in the place of `{{name}}`.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.names.push((format!("{{{{{name}}}}}"), value.to_string()));
        self
    }

    /// Writes a file beside the configuration.
    pub fn file(mut self, name: &str, text: impl Into<String>) -> Self {
        self.files.push((name.to_owned(), text.into()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// More arguments for `tollgate run`.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// The folder of the configuration.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the files and gives the path of the configuration.
    pub fn write(&self) -> PathBuf {
        for (name, text) in &self.files {
            let path = self.dir().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, self.fill_in(text)).unwrap();
        }
        let path = self.dir().join("tollgate.yaml");
        std::fs::write(&path, self.fill_in(&self.yaml) + &self.admin()).unwrap();
        path
    }

    /// The default admin address is one for the whole machine; tests that say nothing get one of their own.
    fn admin(&self) -> String {
        let says = self.yaml.lines().any(|line| line.starts_with("admin:"));
        if says { String::new() } else { "\nadmin: { bind: \"127.0.0.1:0\" }\n".to_owned() }
    }

    fn fill_in(&self, text: &str) -> String {
        let dir = self.dir().to_str().unwrap();
        let text = text.replace("{{dir}}", dir);
        self.names.iter().fold(text, |text, (name, value)| text.replace(name, value))
    }

    /// Runs another command on the same files, such as `check` or `explain`.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.write();
        tollgate_in(self.dir(), &self.env, args)
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Gateway {
        self.try_start().unwrap_or_else(|ran| panic!("tollgate did not start: {ran:#?}"))
    }

    /// Starts it and waits until it is ready, or has given up.
    pub fn try_start(self) -> Result<Gateway, Ran> {
        raise_file_limit();
        let path = self.write();
        let mut command = binary();
        command
            .args(["run", "-c"])
            .arg(path)
            .args(&self.args)
            .envs(self.env.iter().cloned())
            .current_dir(self.dir());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) =
            (Lines::read(child.stdout.take().unwrap()), Lines::read(child.stderr.take().unwrap()));
        let until = Instant::now() + DEADLINE;
        while !stderr.any(|line| line.starts_with("tollgate ") && line.contains(" ready: ")) {
            let gone = child.try_wait().unwrap();
            if gone.is_some() || Instant::now() > until {
                let _already_gone = child.kill();
                let code = child.wait().unwrap().code().unwrap_or(-1);
                return Err(Ran {
                    code,
                    stdout: stdout.ended().join("\n"),
                    stderr: stderr.ended().join("\n"),
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let addresses = addresses(stdout.all().iter().chain(&stderr.all()));
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        Ok(Gateway { child: Mutex::new(child), pid, addresses, stdout, stderr, plan: self })
    }
}

impl Gateway {
    /// Starts a configuration that needs nothing else.
    pub fn start(yaml: &str) -> Self {
        Plan::new(yaml).start()
    }

    /// The address of a listener.
    pub fn addr(&self, listener: &str) -> SocketAddr {
        let known = || format!("no `listening {listener} …` line; known: {:?}", self.addresses);
        *self.addresses.get(listener).unwrap_or_else(|| panic!("{}", known()))
    }

    /// Every listener that said its address.
    pub fn addresses(&self) -> &HashMap<String, SocketAddr> {
        &self.addresses
    }

    /// The address of the admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.addr("admin")
    }

    /// A new connection to the listener `web`.
    pub fn client(&self) -> Client {
        Client::connect(self.addr("web"))
    }

    /// GET over a new connection to `web`.
    pub fn get(&self, target: &str) -> Response {
        self.client().get(target)
    }

    /// GET on the admin listener.
    pub fn ask_admin(&self, target: &str) -> Response {
        Client::connect(self.admin()).get(target)
    }

    /// Value of a metric's series, given as in the exposition text: `tollgate_x_total{route="a.b"}` selects every series
    /// that has these labels, and sums them.
    pub fn metric(&self, selector: &str) -> f64 {
        let text = self.ask_admin("/metrics").text();
        let (name, labels) = selector.trim_end_matches('}').split_once('{').unwrap_or((selector, ""));
        let wanted: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
        let of_name = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']) && wanted.iter().all(|l| rest.contains(l)))
        });
        of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The plan it was started from: its folder, and other commands on the same files.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn stdout_lines(&self) -> Vec<String> {
        self.stdout.all()
    }

    pub fn stderr(&self) -> String {
        self.stderr.all().join("\n")
    }

    /// The start-up line.
    pub fn ready_line(&self) -> String {
        self.stderr.all().into_iter().find(|line| line.contains(" ready: ")).unwrap_or_default()
    }

    /// The access log so far, one JSON object for each line of standard output that is one.
    pub fn access_log(&self) -> Vec<Value> {
        self.stdout
            .all()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(Value::is_object)
            .collect()
    }

    /// Waits for the access log line number `index`, from 0.
    pub fn log_line(&self, index: usize) -> Value {
        eventually(DEADLINE, &format!("access log line {index}"), || self.access_log().into_iter().nth(index))
    }

    /// Waits for the access log line of the request that got this response.
    pub fn log_of(&self, response: &Response) -> Value {
        let id = response.header("x-request-id").expect("a response with x-request-id");
        let find = || self.access_log().into_iter().find(|line| line["request_id"] == id);
        eventually(DEADLINE, &format!("the access log line of request {id}"), find)
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// Waits for the process to end.
    pub fn wait_exit(&self, deadline: Duration) -> ExitStatus {
        eventually(deadline, "the gateway has exited", || self.child.lock().unwrap().try_wait().unwrap())
    }

    /// Whether the process still runs.
    pub fn is_running(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// Process ids of the processes that have taken over, the last one last.
    pub fn successors(&self) -> Vec<i32> {
        let is_ready = |line: &String| line.starts_with("tollgate ") && line.contains(" ready: ");
        let pid = |line: String| line.rsplit_once("pid ")?.1.parse().ok();
        self.stderr.all().into_iter().filter(is_ready).filter_map(pid).skip(1).collect()
    }

    /// A request to the admin listener on `admin.sock` in the folder of the configuration.
    pub fn admin_socket(&self) -> Client {
        Client::connect_unix(&self.plan.dir().join("admin.sock"))
    }

    /// A command that asks the admin listener on `admin.sock`.
    pub fn ask(&self, args: &[&str]) -> Ran {
        let admin = format!("unix:{}", self.plan.dir().join("admin.sock").display());
        tollgate_in(self.plan.dir(), &[("TOLLGATE_ADMIN".to_owned(), admin)], args)
    }

    /// Changes the configuration file: the first `from` in it becomes `to`.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.plan.dir().join("tollgate.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "no {from:?} in {text}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.pid())
    }
}

/// The processes whose command line names something in a folder.
fn processes_with(dir: &Path) -> Vec<Pid> {
    let dir = dir.to_str().unwrap().as_bytes();
    let names = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.windows(dir.len()).any(|part| part == dir)
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(names).map(Pid::from_raw).collect()
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _already_gone = child.kill();
        // Not by what they have said: one that has just taken over may not have been heard yet.
        for successor in processes_with(self.plan.dir()) {
            let _already_gone = kill(successor, Signal::SIGKILL);
        }
        let _already_reaped = child.wait();
        if std::thread::panicking() {
            // Captured by the test harness, shown with the failed test. Of the access log the end is enough: more of it would
            // bury why the test failed.
            let log = self.stdout.ended();
            println!("--- gateway stdout ---\n{}", log[log.len().saturating_sub(LAST_LINES)..].join("\n"));
            println!("--- gateway stderr ---\n{}", self.stderr.ended().join("\n"));
        }
    }
}

/// The lines of `listening NAME ADDR`.
fn addresses<'a>(lines: impl Iterator<Item = &'a String>) -> HashMap<String, SocketAddr> {
    let parse = |line: &'a String| {
        let (name, addr) = line.strip_prefix("listening ")?.split_once(' ')?;
        Some((name.to_owned(), addr.trim().parse().ok()?))
    };
    lines.filter_map(parse).collect()
}

/// The lines of a stream, read by a thread of its own as they come.
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Self {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                sink.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Lines { lines, reader: Mutex::new(Some(reader)) }
    }

    fn any(&self, matches: impl Fn(&str) -> bool) -> bool {
        self.lines.lock().unwrap().iter().any(|line| matches(line))
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// All lines of a stream whose process has ended.
    fn ended(&self) -> Vec<String> {
        if let Some(reader) = self.reader.lock().unwrap().take() {
            reader.join().unwrap();
        }
        self.all()
    }
}
