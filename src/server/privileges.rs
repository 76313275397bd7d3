//! What the process may do: file descriptors, and the user it runs as.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{User, chown, geteuid, initgroups, setgid, setuid};
use std::ffi::CString;
use std::path::Path;

/// Raises the soft limit of open files to the hard one: every connection needs one or two.
pub(super) fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("only {soft} files can be open at once: {error}");
    }
}

/// How many connections of clients there are files for, when some are kept for targets and everything else.
pub(super) fn most_connections() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    files - (files / 16).max(64).min(files / 2)
}

/// Becomes another user, with its groups and none of root's rights, and gives it the admin socket. Must come before any thread
/// is started.
///
/// # Errors
/// There is no such user, or we are not root.
pub(super) fn become_user(name: Option<&str>, socket: Option<&Path>) -> Result<(), String> {
    let Some(name) = name else {
        if geteuid().is_root() {
            log::warn!("running as root; set `process.user` to give its rights up after binding");
        }
        return Ok(());
    };
    let user = User::from_name(name).map_err(|error| format!("user `{name}`: {error}"))?;
    let user = user.ok_or_else(|| format!("there is no user `{name}`"))?;
    if geteuid() == user.uid {
        return Ok(());
    }
    if !geteuid().is_root() {
        return Err(format!("only root can become user `{name}`: start as root, or as that user"));
    }
    let failed = |error: nix::Error| format!("cannot become user `{name}`: {error}");
    if let Some(socket) = socket {
        chown(socket, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    let c_name = CString::new(name).map_err(|_| format!("`{name}` is not a user name"))?;
    initgroups(&c_name, user.gid).map_err(failed)?;
    setgid(user.gid).map_err(failed)?;
    setuid(user.uid).map_err(failed)
}
