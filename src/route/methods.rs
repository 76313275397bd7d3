//! Sets of request methods.

use http::Method;
use std::fmt;

/// Methods with a bit of their own, in the order in which they are listed. HEAD follows GET.
const STANDARD: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"];
const GET: u16 = 1;
const HEAD: u16 = 1 << 1;

/// The methods a rule states. Where GET is stated, HEAD is answered too (RFC 9110 section 9.3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Methods {
    standard: u16,
    /// Extension methods, sorted.
    others: Vec<Box<str>>,
}

/// A method, looked up once per request.
#[derive(Clone, Copy, Debug)]
pub(super) struct MethodKey<'a> {
    /// Zero for extension methods.
    bit: u16,
    text: &'a str,
}

impl<'a> MethodKey<'a> {
    pub(super) fn new(method: &'a Method) -> Self {
        MethodKey { bit: bit(method), text: method.as_str() }
    }

    pub(super) fn is_head(self) -> bool {
        self.bit == HEAD
    }
}

impl Methods {
    /// Reads method names. They are case-sensitive (RFC 9110 section 9.1); any token is a method.
    ///
    /// # Errors
    /// A word is no token, or a standard method in lower case; with help.
    pub fn parse<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Result<Methods, String> {
        let mut methods = Methods::default();
        for word in words {
            methods.insert(&valid(word.as_ref())?);
        }
        Ok(methods)
    }

    /// Whether no method is stated.
    pub fn is_empty(&self) -> bool {
        self.standard == 0 && self.others.is_empty()
    }

    /// Whether the method itself is stated.
    pub fn states(&self, method: &Method) -> bool {
        self.states_key(MethodKey::new(method))
    }

    /// Whether the method is stated, or is HEAD where GET is stated.
    pub fn answers(&self, method: &Method) -> bool {
        self.answers_key(MethodKey::new(method))
    }

    pub(super) fn states_key(&self, method: MethodKey<'_>) -> bool {
        self.standard & method.bit != 0
            || method.bit == 0 && self.others.iter().any(|other| **other == *method.text)
    }

    pub(super) fn answers_key(&self, method: MethodKey<'_>) -> bool {
        self.states_key(method) || method.bit == HEAD && self.standard & GET != 0
    }

    /// Adds all methods of `other`.
    pub fn extend(&mut self, other: &Methods) {
        self.standard |= other.standard;
        other.others.iter().for_each(|method| self.insert_other(method));
    }

    /// Whether both state a method.
    pub fn overlaps(&self, other: &Methods) -> bool {
        self.standard & other.standard != 0 || self.others.iter().any(|method| other.others.contains(method))
    }

    /// Whether all that `other` answers is answered by us.
    pub fn covers(&self, other: &Methods) -> bool {
        self.answered() & other.answered() == other.answered()
            && other.others.iter().all(|method| self.others.contains(method))
    }

    /// The methods answered, in canonical order, HEAD behind GET.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let answered = self.answered();
        let standard = STANDARD
            .iter()
            .enumerate()
            .filter(move |(at, _)| answered & (1 << at) != 0)
            .map(|(_, name)| *name);
        standard.chain(self.others.iter().map(|method| &**method))
    }

    /// The value of an `Allow` field (RFC 9110 section 10.2.1), such as `GET, HEAD, POST`.
    pub fn allow(&self) -> String {
        let methods: Vec<&str> = self.iter().collect();
        methods.join(", ")
    }

    fn answered(&self) -> u16 {
        self.standard | if self.standard & GET != 0 { HEAD } else { 0 }
    }

    fn insert(&mut self, method: &Method) {
        match bit(method) {
            0 => self.insert_other(method.as_str()),
            bit => self.standard |= bit,
        }
    }

    fn insert_other(&mut self, method: &str) {
        if let Err(at) = self.others.binary_search_by(|other| (**other).cmp(method)) {
            self.others.insert(at, method.into());
        }
    }
}

impl FromIterator<Method> for Methods {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        let mut set = Methods::default();
        for method in methods {
            set.insert(&method);
        }
        set
    }
}

/// The methods as stated: HEAD only where it is stated.
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head_implied = self.standard & HEAD == 0;
        let stated = self.iter().filter(|name| !(head_implied && *name == "HEAD"));
        for (at, name) in stated.enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

fn bit(method: &Method) -> u16 {
    match *method {
        Method::GET => GET,
        Method::HEAD => HEAD,
        Method::POST => 1 << 2,
        Method::PUT => 1 << 3,
        Method::PATCH => 1 << 4,
        Method::DELETE => 1 << 5,
        Method::OPTIONS => 1 << 6,
        Method::TRACE => 1 << 7,
        Method::QUERY => 1 << 8,
        _ => 0,
    }
}

fn valid(word: &str) -> Result<Method, String> {
    let upper = word.to_ascii_uppercase();
    if word != upper && (STANDARD.contains(&&*upper) || upper == "CONNECT") {
        return Err(format!("`{word}` is not a method, they are case-sensitive\nhelp: write `{upper}`"));
    }
    if word == "CONNECT" {
        return Err(
            "`CONNECT` cannot be routed: it asks for a tunnel and has no path\nhelp: leave it out".to_owned()
        );
    }
    let refuse = |_| format!("`{word}` is not a method\nhelp: write methods such as `GET` or `[GET, POST]`");
    Method::from_bytes(word.as_bytes()).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(words: &[&str]) -> Methods {
        Methods::parse(words).unwrap()
    }

    #[test]
    fn bits_follow_the_list() {
        for (at, name) in STANDARD.iter().enumerate() {
            assert_eq!(bit(&name.parse().unwrap()), 1 << at, "{name}");
        }
    }

    #[test]
    fn allow_is_canonical_and_has_head_with_get() {
        assert_eq!(
            methods(&["PURGE", "DELETE", "POST", "GET", "COPY", "PURGE"]).allow(),
            "GET, HEAD, POST, DELETE, COPY, PURGE"
        );
        assert_eq!(methods(&["POST"]).allow(), "POST");
        assert_eq!(methods(&["HEAD"]).allow(), "HEAD");
        assert_eq!(methods(&[]).allow(), "");
        assert_eq!(methods(&["POST", "GET"]).to_string(), "GET, POST");
        assert_eq!(methods(&["HEAD", "GET"]).to_string(), "GET, HEAD");
    }

    #[test]
    fn head_follows_get() {
        let get = methods(&["GET"]);
        assert!(get.answers(&Method::HEAD) && !get.states(&Method::HEAD));
        assert!(!methods(&["POST"]).answers(&Method::HEAD));
        assert!(get.covers(&methods(&["HEAD"])) && !methods(&["HEAD"]).covers(&get));
        assert!(!get.overlaps(&methods(&["HEAD"])));
    }

    #[test]
    fn extension_methods_are_compared_as_text() {
        let purge = Method::from_bytes(b"PURGE").unwrap();
        let mut set: Methods = [Method::GET, purge.clone()].into_iter().collect();
        assert!(set.states(&purge) && !set.states(&Method::from_bytes(b"purge").unwrap()));
        assert!(set.overlaps(&methods(&["PURGE"])) && set.covers(&methods(&["PURGE"])));
        set.extend(&methods(&["BAN", "PUT"]));
        assert_eq!(set.allow(), "GET, HEAD, PUT, BAN, PURGE");
    }

    #[test]
    fn words_are_checked() {
        assert!(Methods::parse(["get"]).unwrap_err().ends_with("help: write `GET`"));
        for word in ["", "G T", "GET,POST", "CONNECT", "connect", "é"] {
            assert!(Methods::parse([word]).is_err_and(|error| error.contains("\nhelp: ")), "{word}");
        }
    }
}
