//! The file that quotas are kept in: a header, then records that are only ever appended, each with the whole of what a
//! counter has used in a slot. The last record of a counter and slot counts.
//!
//! ```text
//! header    "tgquota1"
//! record    length of the body u32 · CRC-32C of the body u32 · body           all numbers little endian
//! body      slot u64 · used u64 · end u64 · length of the name u16 · name · key
//! ```
//! Where the process or the machine died in the middle of a record, reading ends before it. When the file has grown to
//! twice what it would be if written anew, it is: beside it, and then put in its place.

use super::quotas::Entry;
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const HEADER: &[u8; 8] = b"tgquota1";
/// A file smaller than this is not worth writing anew.
const SMALL: u64 = 64 * 1024;
/// More than a record with the longest name and key can be; a larger length is damage.
const LONGEST_BODY: usize = 1 << 20;

/// The file, locked for this process.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    _lock: Flock<File>,
    file: Option<File>,
    /// Length of what is known to be good.
    length: u64,
    /// Length when it was last written anew.
    compact: u64,
}

impl Journal {
    /// Opens the file, made if there is none, and gives what it holds to `restore`.
    ///
    /// Fails, in words for the operator, when it is no file, cannot be read, written or locked, or is none of ours.
    pub fn open(path: &Path, mut restore: impl FnMut(&Entry<'_>)) -> Result<Self, String> {
        let says = |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", path.display());
        let lock = lock(&beside(path, ".lock"))?;
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => return Err(format!("{} is not a file", path.display())),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(says("cannot read", &error)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(|error| says("cannot open", &error))?;
        let bytes = fs::read(path).map_err(|error| says("cannot read", &error))?;
        let good = if HEADER.starts_with(bytes.get(..HEADER.len()).unwrap_or(&bytes)) {
            read(path, &bytes, &mut restore)
        } else {
            return Err(format!("{} was not written by tollgate, or by another version", path.display()));
        };
        file.set_len(good).map_err(|error| says("cannot write", &error))?;
        let mut journal =
            Journal { path: path.to_owned(), _lock: lock, file: Some(file), length: good, compact: good };
        if good == 0 {
            journal
                .append(HEADER)
                .and_then(|()| sync_folder(path))
                .map_err(|error| says("cannot write", &error))?;
        }
        Ok(journal)
    }

    /// Whether all shall be written anew: it would be much shorter, or the last write failed.
    pub fn is_due(&self) -> bool {
        self.file.is_none() || self.length > SMALL.max(2 * self.compact)
    }

    /// Writes records to the end and waits until the disk has them. After an error the file [`is_due`](Self::is_due).
    pub fn append(&mut self, records: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::Error::from(ErrorKind::NotFound)) };
        match file.write_all(records).and_then(|()| file.sync_data()) {
            Ok(()) => self.length += records.len() as u64,
            Err(error) => {
                // What became of it nobody knows; without the file nothing is added behind it.
                let _ = file.set_len(self.length);
                self.file = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes all anew: `fill` gives the records to the function that it gets.
    pub fn rewrite(
        &mut self,
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<()> {
        // Whoever fails here has asked for changes that would not be in the old file.
        self.file = None;
        let fresh = beside(&self.path, ".new");
        // Left behind where a process died in the middle of this.
        fs::remove_file(&fresh)
            .or_else(|error| (error.kind() == ErrorKind::NotFound).then_some(()).ok_or(error))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let (mut out, mut length) = (BufWriter::with_capacity(1 << 16, file), 0);
        let mut write = |records: &[u8]| {
            length += records.len() as u64;
            out.write_all(records)
        };
        write(HEADER)?;
        fill(&mut write)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_data()?;
        drop(file);
        fs::rename(&fresh, &self.path)?;
        sync_folder(&self.path)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        (self.length, self.compact) = (length, length);
        Ok(())
    }
}

/// Writes a record. One with a name of more than 64 KiB has no place in the format; no configuration has such names.
pub(super) fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let Ok(name_length) = u16::try_from(entry.name.len()) else { return };
    let mut body = Vec::with_capacity(26 + entry.name.len() + entry.key.len());
    for number in [entry.slot, entry.used, entry.end] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&name_length.to_le_bytes());
    body.extend_from_slice(entry.name.as_bytes());
    body.extend_from_slice(entry.key);
    let Some(length) = u32::try_from(body.len()).ok().filter(|_| body.len() <= LONGEST_BODY) else { return };
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32c(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

/// Reads records until the end or the first that is damaged; gives how many bytes are good.
fn read(path: &Path, bytes: &[u8], restore: &mut impl FnMut(&Entry<'_>)) -> u64 {
    let Some(mut rest) = bytes.get(HEADER.len()..) else { return 0 };
    while let Some((entry, behind)) = decode(rest) {
        restore(&entry);
        rest = behind;
    }
    if !rest.is_empty() {
        log::warn!(
            "quotas: the last {} of {} bytes of {} are incomplete or damaged and were left out",
            rest.len(),
            bytes.len(),
            path.display()
        );
    }
    (bytes.len() - rest.len()) as u64
}

/// The record at the front, and what is behind it.
pub(super) fn decode(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let length =
        usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= LONGEST_BODY)?;
    let (body, behind) = rest.split_at_checked(length)?;
    (crc32c(body) == u32::from_le_bytes(*checksum)).then_some(())?;
    let (slot, body) = body.split_first_chunk()?;
    let (used, body) = body.split_first_chunk()?;
    let (end, body) = body.split_first_chunk()?;
    let (name_length, body) = body.split_first_chunk()?;
    let (name, key) = body.split_at_checked(usize::from(u16::from_le_bytes(*name_length)))?;
    let [slot, used, end] = [slot, used, end].map(|number| u64::from_le_bytes(*number));
    Some((Entry { name: std::str::from_utf8(name).ok()?, key, slot, used, end }, behind))
}

/// A file of its own, because the journal itself is replaced.
fn lock(path: &Path) -> Result<Flock<File>, String> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => format!("{} is held by another process", path.display()),
        error => format!("cannot lock {}: {error}", path.display()),
    })
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// A new name lasts only when its folder has been written too.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// CRC-32C (Castagnoli), as in RFC 3720 appendix B.4 and RFC 9260 appendix A: polynomial 0x1EDC6F41, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let step = |sum: u32, byte: &u8| {
        let place = (sum ^ u32::from(*byte)) & 0xFF;
        (sum >> 8) ^ TABLE.get(place as usize).copied().unwrap_or_default()
    };
    !bytes.iter().fold(!0, step)
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut place = 0;
    while place < 256 {
        let (mut sum, mut bit) = (place as u32, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82F6_3B78 } else { sum >> 1 };
            bit += 1;
        }
        table[place] = sum;
        place += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    type Owned = (String, Vec<u8>, u64, u64, u64);

    fn owned(entry: &Entry<'_>) -> Owned {
        (entry.name.to_owned(), entry.key.to_owned(), entry.slot, entry.used, entry.end)
    }

    fn encoded(entries: &[Owned]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, key, slot, used, end) in entries {
            encode(&Entry { name, key, slot: *slot, used: *used, end: *end }, &mut out);
        }
        out
    }

    fn open(path: &Path) -> Result<(Journal, Vec<Owned>), String> {
        let mut entries = Vec::new();
        let journal = Journal::open(path, |entry| entries.push(owned(entry)))?;
        Ok((journal, entries))
    }

    fn samples() -> Vec<Owned> {
        (0..50_u64)
            .map(|at| (format!("plan {at}"), vec![at as u8, 0, b'\n', 0xFF], at * 7, at * at, u64::MAX - at))
            .collect()
    }

    /// Check value of the catalogue of parametrised CRC algorithms, CRC-32/ISCSI; and RFC 3720, B.4.
    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    }

    #[test]
    fn what_is_written_is_read_and_the_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quotas");
        let (mut journal, found) = open(&path).unwrap();
        assert!(found.is_empty() && !journal.is_due());
        journal.append(&encoded(&samples()[..20])).unwrap();
        journal.append(&encoded(&samples()[20..])).unwrap();
        drop(journal);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (mut journal, found) = open(&path).unwrap();
        assert_eq!(found, samples());
        journal.rewrite(|write| write(&encoded(&samples()[..3]))).unwrap();
        journal.append(&encoded(&samples()[3..4])).unwrap();
        drop(journal);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open(&path).unwrap().1, samples()[..4]);
    }

    #[test]
    fn it_is_due_when_it_has_doubled() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(&folder.path().join("quotas")).unwrap();
        let records = encoded(&samples());
        let mut written = 0;
        while !journal.is_due() {
            journal.append(&records).unwrap();
            written += records.len() as u64;
        }
        assert!(written >= SMALL && written < SMALL + 2 * records.len() as u64);
        journal.rewrite(|write| write(&vec![0; 3 * SMALL as usize])).unwrap();
        assert!(!journal.is_due());
        journal.append(&vec![0; 2 * SMALL as usize]).unwrap();
        assert!(!journal.is_due());
        journal.append(&vec![0; 2 * SMALL as usize]).unwrap();
        assert!(journal.is_due());
    }

    #[test]
    fn one_process_holds_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quotas");
        let held = open(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert!(error.ends_with("quotas.lock is held by another process"), "{error}");
        drop(held);
        open(&path).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(error.ends_with("is not a file"), "{error}");
        let other = folder.path().join("other");
        fs::write(&other, b"precious text").unwrap();
        let error = open(&other).unwrap_err();
        assert!(error.ends_with("was not written by tollgate, or by another version"), "{error}");
        assert_eq!(fs::read(&other).unwrap(), b"precious text");
        let error = open(&folder.path().join("missing/quotas")).unwrap_err();
        assert!(error.contains("cannot open") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_failed_write_makes_all_be_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quotas");
        let (mut journal, _) = open(&path).unwrap();
        journal.append(&encoded(&samples()[..2])).unwrap();
        // Reading only: every write to it fails.
        journal.file = Some(File::open(&path).unwrap());
        journal.append(&encoded(&samples()[2..4])).unwrap_err();
        assert!(journal.is_due());
        journal.append(&encoded(&samples()[2..4])).unwrap_err();
        journal.rewrite(|_| Err(io::Error::from(ErrorKind::StorageFull))).unwrap_err();
        assert!(journal.is_due());
        journal.rewrite(|write| write(&encoded(&samples()[..4]))).unwrap();
        assert!(!journal.is_due());
        drop(journal);
        assert_eq!(open(&path).unwrap().1, samples()[..4]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Cut anywhere, by a crash: what was whole is there, and what is written next is read after it.
        #[test]
        fn a_cut_file_gives_its_whole_records_and_can_be_written_on(cut in 0_usize..3_000) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("quotas");
            let mut bytes = HEADER.to_vec();
            bytes.extend_from_slice(&encoded(&samples()));
            bytes.truncate(cut);
            fs::write(&path, &bytes).unwrap();
            let (mut journal, found) = open(&path).unwrap();
            prop_assert_eq!(&found[..], &samples()[..found.len()]);
            let whole = HEADER.len() + encoded(&samples()[..found.len()]).len();
            let next = HEADER.len() + encoded(&samples()[..50.min(found.len() + 1)]).len();
            prop_assert!(found.is_empty() || whole <= cut);
            prop_assert!(found.len() == 50 || cut < next);
            journal.append(&encoded(&samples()[..1])).unwrap();
            drop(journal);
            let again = open(&path).unwrap().1;
            prop_assert_eq!(again.len(), found.len() + 1);
            prop_assert_eq!(again.last().cloned(), samples().first().cloned());
        }

        /// Any byte damaged: what is before is there, nothing wrong is read, nothing panics.
        #[test]
        fn damage_ends_the_reading(at in 8_usize..2_500, with in 1_u8..=255) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("quotas");
            let mut bytes = HEADER.to_vec();
            bytes.extend_from_slice(&encoded(&samples()));
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= with;
            fs::write(&path, &bytes).unwrap();
            let found = open(&path).unwrap().1;
            prop_assert_eq!(&found[..], &samples()[..found.len()]);
            prop_assert!(HEADER.len() + encoded(&samples()[..found.len()]).len() <= at);
            prop_assert!(HEADER.len() + encoded(&samples()[..found.len() + 1]).len() > at);
        }
    }
}
