//! Where Redis is: the URL of the document, taken apart.
//!
//! Written by hand because a list of hosts is no URL to a URL parser. No error repeats any of the text: there may be a
//! password in it.

use crate::value::Secret;

const FORMS: &str = "write `redis://HOST:PORT/DB`, `rediss://…` (TLS), `redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB` or \
                     `redis+cluster://HOST:PORT,HOST:PORT`, with `USER:PASSWORD@` in front of the hosts";

/// The address of one or more servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// How the servers belong together.
    pub topology: Topology,
    /// Whether to speak TLS to all of them, sentinels included.
    pub tls: bool,
    /// Hosts and ports; at least one.
    pub hosts: Vec<(String, u16)>,
    /// Who to be for Redis.
    pub login: Login,
    /// Number of the database.
    pub db: u32,
}

/// How servers belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// A server.
    Single,
    /// Sentinels, which know the master.
    Sentinel {
        /// What they call the master.
        master: String,
        /// Who to be for the sentinels, which have their own users: `?sentinel-user=…&sentinel-password=…`.
        login: Login,
    },
    /// Nodes of a cluster, which know the others.
    Cluster,
}

/// A user and a password, either of which may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Name of an ACL user.
    pub user: Option<String>,
    /// Its password, or that of the default user.
    pub password: Option<Secret>,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without any of its text.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("is no URL"))?;
        let (tls, sort) = sort_of(scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (read_login(login)?, hosts),
            None => (Login::default(), authority),
        };
        let standard = if matches!(sort, Sort::Sentinel) { 26_379 } else { 6_379 };
        let hosts = hosts.split(',').map(|host| read_host(host, standard)).collect::<Result<Vec<_>, _>>()?;
        if matches!(sort, Sort::Single) && hosts.len() > 1 {
            return Err(wrong("names several hosts, which only `redis+sentinel` and `redis+cluster` can"));
        }
        let (topology, db) = sort.read(path.trim_end_matches('/'), query)?;
        Ok(Address { topology, tls, hosts, login, db })
    }
}

enum Sort {
    Single,
    Sentinel,
    Cluster,
}

impl Sort {
    fn read(self, path: &str, query: &str) -> Result<(Topology, u32), String> {
        if !matches!(self, Sort::Sentinel) && !query.is_empty() {
            return Err(wrong("has a `?`, after which only `redis+sentinel` knows anything"));
        }
        match self {
            Sort::Single => Ok((Topology::Single, read_db(path)?)),
            Sort::Cluster if read_db(path)? != 0 => Err(wrong("names a database, and a cluster has only 0")),
            Sort::Cluster => Ok((Topology::Cluster, 0)),
            Sort::Sentinel => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                let master = decode(master)?;
                if master.is_empty() {
                    return Err(wrong("does not name the master: `redis+sentinel://HOST:PORT/MASTER`"));
                }
                Ok((Topology::Sentinel { master, login: read_sentinel_login(query)? }, read_db(db)?))
            }
        }
    }
}

fn sort_of(scheme: &str) -> Result<(bool, Sort), String> {
    match scheme {
        "redis" => Ok((false, Sort::Single)),
        "rediss" => Ok((true, Sort::Single)),
        "redis+sentinel" => Ok((false, Sort::Sentinel)),
        "rediss+sentinel" => Ok((true, Sort::Sentinel)),
        "redis+cluster" => Ok((false, Sort::Cluster)),
        "rediss+cluster" => Ok((true, Sort::Cluster)),
        _ => Err(wrong("begins with an unknown scheme")),
    }
}

fn read_login(text: &str) -> Result<Login, String> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let user = Some(decode(user)?).filter(|user| !user.is_empty());
    let password = Some(decode(password)?).filter(|password| !password.is_empty()).map(Secret::new);
    if user.is_some() && password.is_none() {
        return Err(wrong("has a user without a password"));
    }
    Ok(Login { user, password })
}

fn read_sentinel_login(query: &str) -> Result<Login, String> {
    let mut login = Login::default();
    for (name, value) in query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
    {
        match name {
            "sentinel-user" => login.user = Some(decode(value)?),
            "sentinel-password" => login.password = Some(Secret::new(decode(value)?)),
            _ => {
                return Err(wrong(
                    "has something other than `sentinel-user` and `sentinel-password` after the `?`",
                ));
            }
        }
    }
    Ok(login)
}

fn read_host(text: &str, standard: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(|| wrong("has a `[` without its `]`"))?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => Some(standard),
        None => None,
        Some(digits) => digits.parse().ok().filter(|port| *port != 0),
    };
    let port = port.ok_or_else(|| wrong("has a port that is no number from 1 to 65535"))?;
    if host.is_empty() || host.bytes().any(|byte| byte.is_ascii_whitespace() || byte == b'%') {
        return Err(wrong("has a host that is none"));
    }
    Ok((host.to_owned(), port))
}

fn read_db(path: &str) -> Result<u32, String> {
    if path.is_empty() {
        return Ok(0);
    }
    path.parse().map_err(|_| wrong("ends with something that is no number of a database"))
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, coded)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let (digits, after) =
            coded.split_at_checked(2).ok_or_else(|| wrong("has a `%` that begins nothing"))?;
        let byte = u8::from_str_radix(digits, 16).map_err(|_| wrong("has a `%` that begins nothing"))?;
        bytes.push(byte);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 when decoded"))
}

fn wrong(what: &str) -> String {
    format!("the URL of Redis {what}\nhelp: {FORMS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: Option<&str>, password: Option<&str>) -> Login {
        Login { user: user.map(str::to_owned), password: password.map(|text| Secret::new(text.to_owned())) }
    }

    fn hosts(hosts: &[(&str, u16)]) -> Vec<(String, u16)> {
        hosts.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect()
    }

    #[test]
    fn each_form_is_read() {
        let plain = Address::parse("redis://cache.internal").unwrap();
        let nobody = Login::default();
        let expected = Address {
            topology: Topology::Single,
            tls: false,
            hosts: hosts(&[("cache.internal", 6379)]),
            login: nobody.clone(),
            db: 0,
        };
        assert_eq!(plain, expected);

        let tls = Address::parse("rediss://gate:p%40ss%2Fword@[::1]:6380/3").unwrap();
        let login_of_gate = login(Some("gate"), Some("p@ss/word"));
        assert_eq!((tls.tls, tls.db, tls.login), (true, 3, login_of_gate));
        assert_eq!(tls.hosts, hosts(&[("::1", 6380)]));

        let sentinel =
            Address::parse("redis+sentinel://:secret@a,b:26380/main/2?sentinel-password=other").unwrap();
        let master = Topology::Sentinel { master: "main".into(), login: login(None, Some("other")) };
        assert_eq!(
            (sentinel.topology, sentinel.db, sentinel.login),
            (master, 2, login(None, Some("secret")))
        );
        assert_eq!(sentinel.hosts, hosts(&[("a", 26_379), ("b", 26_380)]));

        let cluster = Address::parse("rediss+cluster://a:7000,b:7001/").unwrap();
        assert_eq!((cluster.topology, cluster.tls, cluster.hosts.len()), (Topology::Cluster, true, 2));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in [
            "hunter2",
            "http://u:hunter2@a",
            "redis://u:hunter2@",
            "redis://u:hunter2@a:0",
            "redis://u:hunter2@a:70000",
            "redis://u:hunter2@a,b",
            "redis://u:hunter2@a/hunter2",
            "redis://u:hunter2%@a",
            "redis://u:hunter2%zz@a",
            "redis://u:hunter2%ff@a",
            "redis://hunter2@a",
            "redis://u:hunter2@a/0?hunter2=1",
            "redis://u:hunter2@[::1",
            "redis+cluster://u:hunter2@a/1",
            "redis+sentinel://u:hunter2@a",
            "redis+sentinel://u:hunter2@a/m/x",
            "redis+sentinel://u:hunter2@a/m?hunter2=x",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains("help: "), "{error}");
        }
    }
}
