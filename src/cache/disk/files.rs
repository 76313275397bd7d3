//! The folder of a disk tier: one file for each stored answer, made under another name and then put in its place.
//!
//! ```text
//! lock                     held by the process that uses the folder
//! new/ID                   being written; of no use after a crash
//! objects/XX/ID            stored; XX are the last two digits of ID
//! objects/XX/ID.expired    the same, stale from now on
//! objects/XX/ID.invalid    the same, to be validated before its next use
//! ```
//! Nothing is synced: after a crash of the machine files may be torn or gone, which their checksums tell. A process that is
//! killed leaves nothing torn.

use super::format::{self, BLOCK, Head, Layout, PREFIX};
use crate::cache::purge::How;
use crate::cache::{Body, Stored};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Folders that files are spread over.
const FOLDERS: u64 = 256;
/// Read at once for a head; most are shorter.
const FIRST_READ: usize = 4096;

/// The folder, while this process has it.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    _lock: Flock<File>,
}

/// Why a folder cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Another process uses it.
    Busy,
    /// It cannot be read or written.
    Failed(io::Error),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Unusable::Failed(error)
    }
}

impl Files {
    /// Takes the folder for this process, and makes it if there is none. What was being written is removed.
    pub fn open(root: &Path) -> Result<Files, Unusable> {
        let folder = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        folder(root)?;
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(root.join("lock"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Unusable::Busy,
            errno => Unusable::Failed(errno.into()),
        })?;
        let new = root.join("new");
        folder(&new)?;
        for entry in fs::read_dir(&new)? {
            drop(fs::remove_file(entry?.path()));
        }
        for number in 0..FOLDERS {
            folder(&root.join(format!("objects/{number:02x}")))?;
        }
        Ok(Files { root: root.to_owned(), _lock: lock })
    }

    fn path(&self, id: u64) -> PathBuf {
        path(&self.root, id)
    }

    /// Writes an answer whose body is whole. Gives the length of its file.
    pub fn write(&self, id: u64, key: &[u8], stored: &Stored<Body>) -> io::Result<u64> {
        let head = format::encode(id, key, stored).ok_or(ErrorKind::InvalidInput)?;
        let new = self.root.join(format!("new/{id:016x}"));
        let written = write(&new, &head, &stored.body).and_then(|len| {
            fs::rename(&new, self.path(id))?;
            Ok(len)
        });
        if written.is_err() {
            drop(fs::remove_file(&new));
        }
        written
    }

    /// Removes a file. One that is gone already is no failure.
    pub fn remove(&self, id: u64) -> io::Result<()> {
        names(&self.root, id).iter().try_for_each(|name| not_found_is_fine(fs::remove_file(name)))
    }

    /// Notes what was done to a stored answer. One that is gone is no failure.
    pub fn mark(&self, id: u64, how: How) -> io::Result<()> {
        let [plain, expired, invalid] = names(&self.root, id);
        match how {
            How::Expire => not_found_is_fine(fs::rename(&plain, &expired)),
            How::Invalidate | How::Remove => {
                not_found_is_fine(fs::rename(&plain, &invalid))?;
                not_found_is_fine(fs::rename(&expired, &invalid))
            }
        }
    }

    /// The heads of all that is stored, until one is not `found` worth going on. What cannot be read is removed.
    pub fn each(&self, mut found: impl FnMut(Head) -> bool) -> io::Result<()> {
        for number in 0..FOLDERS {
            for entry in fs::read_dir(self.root.join(format!("objects/{number:02x}")))? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let (digits, mark) = parts(name);
                let id = u64::from_str_radix(digits, 16).ok();
                let head = File::open(&path).and_then(|file| head(&file));
                match head {
                    Ok(head) if Some(head.id) == id => {
                        mark.into_iter().for_each(|how| head.stored.apply(how));
                        if !found(head) {
                            return Ok(());
                        }
                    }
                    Ok(_) => drop(fs::remove_file(&path)),
                    Err(error) if error.kind() == ErrorKind::InvalidData => drop(fs::remove_file(&path)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn path(root: &Path, id: u64) -> PathBuf {
    root.join(format!("objects/{:02x}/{id:016x}", id % FOLDERS))
}

/// The names that a file may have.
fn names(root: &Path, id: u64) -> [PathBuf; 3] {
    let plain = path(root, id);
    [plain.clone(), plain.with_extension("expired"), plain.with_extension("invalid")]
}

/// The number in a name, and what was done to the answer.
fn parts(name: &str) -> (&str, Option<How>) {
    match name.split_once('.') {
        Some((digits, "expired")) => (digits, Some(How::Expire)),
        Some((digits, "invalid")) => (digits, Some(How::Invalidate)),
        _ => (name, None),
    }
}

fn not_found_is_fine(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn write(path: &Path, head: &[u8], body: &Body) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(head)?;
    let mut len = head.len() as u64;
    for piece in format::pieces(body) {
        file.write_all(&piece)?;
        len += piece.len() as u64;
    }
    Ok(len)
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the file is damaged")
}

/// Opens what is stored under a number below `root`, and reads its head.
pub(super) fn open(root: &Path, id: u64) -> io::Result<(File, Head)> {
    let mut opened = names(root, id).into_iter().map(File::open);
    let is_there =
        |opened: &io::Result<File>| !matches!(opened, Err(error) if error.kind() == ErrorKind::NotFound);
    let file = opened.find(is_there).unwrap_or_else(|| Err(ErrorKind::NotFound.into()))?;
    let head = head(&file)?;
    if head.id == id { Ok((file, head)) } else { Err(damaged()) }
}

fn head(file: &File) -> io::Result<Head> {
    let len = file.metadata()?.len();
    let first = usize::try_from(len).unwrap_or(usize::MAX).min(FIRST_READ);
    let mut bytes = vec![0; first];
    file.read_exact_at(&mut bytes, 0)?;
    let (head_len, sum) = format::prefix(&bytes).ok_or_else(damaged)?;
    let end = PREFIX + head_len;
    if len < end as u64 {
        return Err(damaged());
    }
    if end > first {
        bytes.resize(end, 0);
        file.read_exact_at(bytes.get_mut(first..).unwrap_or_default(), first as u64)?;
    }
    let head = format::decode(bytes.get(PREFIX..end).unwrap_or_default(), sum).ok_or_else(damaged)?;
    if head.layout.file_len() == len { Ok(head) } else { Err(damaged()) }
}

/// Reads `blocks` of the body from the `first` on, as far as it has them, and sees that they are right.
pub(super) fn blocks(file: &File, layout: &Layout, first: usize, blocks: usize) -> io::Result<Vec<u8>> {
    let from = (first as u64).saturating_mul(BLOCK as u64).min(layout.body);
    let len = usize::try_from(layout.body - from).unwrap_or(usize::MAX).min(blocks.saturating_mul(BLOCK));
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, layout.begin + from)?;
    if layout.is_right(first, &bytes) { Ok(bytes) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Facts;
    use http::Response;

    fn stored(text: &str) -> Stored<Body> {
        let body = Body::whole(text.as_bytes().to_vec().into());
        Stored::new(Response::new(()).into_parts().0, body, Facts::default(), "https://a.b/")
    }

    fn found(files: &Files) -> Vec<(u64, bool, bool)> {
        let mut all = Vec::new();
        let each = |head: Head| {
            all.push((head.id, head.stored.is_expired(), head.stored.is_invalid()));
            true
        };
        files.each(each).unwrap();
        all.sort_unstable();
        all
    }

    #[test]
    fn files_are_written_marked_found_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        let files = Files::open(&root).unwrap();
        assert!(matches!(Files::open(&root), Err(Unusable::Busy)), "one process at a time");
        for id in [1, 2, 0x1_0002] {
            files.write(id, b"key", &stored("text")).unwrap();
        }
        assert_eq!(found(&files), [(1, false, false), (2, false, false), (0x1_0002, false, false)]);
        files.mark(2, How::Expire).unwrap();
        assert_eq!(found(&files).get(1), Some(&(2, true, false)));
        files.mark(2, How::Invalidate).unwrap();
        files.mark(2, How::Expire).unwrap();
        files.mark(3, How::Expire).unwrap();
        files.remove(1).unwrap();
        files.remove(1).unwrap();
        assert_eq!(found(&files), [(2, false, true), (0x1_0002, false, false)]);
        let (file, head) = open(&root, 2).unwrap();
        assert_eq!((blocks(&file, &head.layout, 0, 1).unwrap(), &*head.key), (b"text".to_vec(), &b"key"[..]));
        assert_eq!(open(&root, 1).err().map(|error| error.kind()), Some(ErrorKind::NotFound));
        drop(files);
        fs::write(root.join("new/9"), "half").unwrap();
        let files = Files::open(&root).unwrap();
        assert!(!root.join("new/9").exists());
        assert_eq!(found(&files).len(), 2);
    }

    #[test]
    fn what_is_damaged_or_under_another_name_is_not_given_and_removed_when_found() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).unwrap();
        for id in 0..4 {
            files.write(id, b"key", &stored("text")).unwrap();
        }
        let whole = fs::read(files.path(0)).unwrap();
        fs::write(files.path(1), &whole[..whole.len() - 1]).unwrap();
        fs::write(files.path(2), &whole).unwrap();
        let mut turned = fs::read(files.path(3)).unwrap();
        *turned.last_mut().unwrap() ^= 1;
        fs::write(files.path(3), turned).unwrap();
        fs::write(folder.path().join("objects/00/junk"), "x".repeat(100)).unwrap();
        let kind = |id| open(folder.path(), id).err().map(|error| error.kind());
        assert_eq!(
            (kind(0), kind(1), kind(2)),
            (None, Some(ErrorKind::InvalidData), Some(ErrorKind::InvalidData))
        );
        // That its body is damaged is seen when it is read.
        let (file, head) = open(folder.path(), 3).unwrap();
        assert!(blocks(&file, &head.layout, 0, 1).is_err());
        assert_eq!(found(&files), [(0, false, false), (3, false, false)]);
        assert_eq!(fs::read_dir(folder.path().join("objects/00")).unwrap().count(), 1);
        assert!(!files.path(1).exists() && !files.path(2).exists());
    }
}
