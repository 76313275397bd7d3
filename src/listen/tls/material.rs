//! Reading the files that TLS is made from.

use super::pair::{Broken, Pair};
use super::{Clients, PairFiles, Spec, client, crypto};
use ring::digest::{Context, SHA256};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use zeroize::Zeroizing;

/// Largest file of certificates or keys, bytes.
const MAX_FILE: u64 = 1 << 20;

/// What stands in the files, understood.
pub struct Material {
    pub(super) pairs: Vec<Pair>,
    /// Checks the certificates of clients.
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Digest of what decides on them; all zero where nobody asks.
    pub(super) context: [u8; 32],
    /// Digest of everything that was read.
    pub(super) content: [u8; 32],
}

/// A file that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which one.
    pub file: File,
    /// Whether it could not even be read.
    pub unreadable: bool,
    /// What is wrong with it: a sentence of which it is the subject.
    pub why: String,
}

impl Fault {
    /// In words, with the path.
    pub(super) fn told(&self, spec: &Spec) -> String {
        let path = match self.file {
            File::Certificate(number) => spec.pairs.get(number).map(|pair| &pair.cert),
            File::Key(number) => spec.pairs.get(number).map(|pair| &pair.key),
            File::Authorities => spec.clients.as_ref().map(|clients| &clients.ca),
        };
        format!("`{}`: {}", path.map_or_else(Default::default, |path| path.display().to_string()), self.why)
    }
}

/// A file that TLS is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The certificate of the pair with this number.
    Certificate(usize),
    /// Its key.
    Key(usize),
    /// The CA certificates that vouch for clients.
    Authorities,
}

impl Material {
    /// Reads all files.
    ///
    /// # Errors
    /// Those that cannot be used, each once.
    pub fn read(spec: &Spec) -> Result<Material, Vec<Fault>> {
        let mut digest = Context::new(&SHA256);
        let (mut pairs, mut faults) = (Vec::new(), Vec::new());
        for (number, files) in spec.pairs.iter().enumerate() {
            match read_pair(number, files, &mut digest) {
                Ok(pair) => pairs.push(pair),
                Err(found) => faults.extend(found),
            }
        }
        let (mut verifier, mut context) = (None, [0; 32]);
        if let Some(clients) = &spec.clients {
            match read_authorities(clients) {
                Ok((made, told)) => (verifier, context) = (Some(made), told),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        digest.update(&context);
        Ok(Material { pairs, verifier, context, content: finished(digest) })
    }
}

/// What checks clients, and the digest of what that depends on.
fn read_authorities(clients: &Clients) -> Result<(Arc<dyn ClientCertVerifier>, [u8; 32]), Fault> {
    let fault = |unreadable, why| Fault { file: File::Authorities, unreadable, why };
    let bundle = read(&clients.ca).map_err(|cause| fault(true, cause.to_string()))?;
    let verifier = client::verifier(&bundle, clients.mode, crypto()).map_err(|why| fault(false, why))?;
    let mut digest = Context::new(&SHA256);
    digest.update(&[clients.mode as u8]);
    digest.update(&bundle);
    Ok((verifier, finished(digest)))
}

fn finished(digest: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    bytes
}

fn read_pair(number: usize, files: &PairFiles, digest: &mut Context) -> Result<Pair, Vec<Fault>> {
    let (cert, key) = (read(&files.cert), read(&files.key));
    let unreadable = |file, cause: io::Error| Fault { file, unreadable: true, why: cause.to_string() };
    let (cert, key) = match (cert, key) {
        (Ok(cert), Ok(key)) => (cert, key),
        (cert, key) => {
            let cert = cert.err().map(|cause| unreadable(File::Certificate(number), cause));
            let key = key.err().map(|cause| unreadable(File::Key(number), cause));
            return Err(cert.into_iter().chain(key).collect());
        }
    };
    for text in [&cert, &key] {
        digest.update(&(text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    Pair::parse(&files.label, &cert, &key, &crypto()).map_err(|broken| {
        let (file, why) = match broken {
            Broken::Certificate(why) => (File::Certificate(number), why),
            Broken::Key(why) => (File::Key(number), why),
        };
        vec![Fault { file, unreadable: false, why }]
    })
}

/// The content of a file, wiped from memory when it is dropped.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // A pipe or a device could make the start hang.
    let length = match std::fs::metadata(path)? {
        facts if !facts.is_file() => return Err(io::Error::other("it is not a regular file")),
        facts => facts.len(),
    };
    if length > MAX_FILE {
        return Err(io::Error::other("it is larger than 1MiB"));
    }
    // Not grown on the way: that would leave copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE.min(length + 1) as usize));
    std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut content)?;
    Ok(content)
}
