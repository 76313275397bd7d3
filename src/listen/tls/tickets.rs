//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): what a client needs to go on with a session where it left off.
//!
//! A ticket holds the whole state of a session, so nothing is kept here but the keys that tickets are sealed with. All
//! listeners share them, a reload keeps them, and [`Tickets::export`] hands them to the process that takes over, so that
//! clients go on with their sessions there.
//!
//! A ticket also says that a client has shown a good certificate. So each is bound to the rules about client certificates
//! under which it was made: a listener that asks for more, or trusts others, does not open it.

use parking_lot::RwLock;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_rustls::rustls::server::ProducesTickets;
use zeroize::Zeroizing;

/// Seconds that a key seals tickets. It opens them for as long again.
const TURN: u64 = 12 * 60 * 60;

/// Bytes of a key's name, which every ticket begins with.
const NAME: usize = 16;

/// Bytes of a key.
const SECRET: usize = 32;

/// First byte of what is exported.
const FORMAT: u8 = 1;

/// Bytes of a key in what is exported.
const EXPORTED: usize = NAME + SECRET + size_of::<u64>();

/// The keys that tickets are sealed with.
pub struct Tickets {
    /// The one that seals, and the one before it.
    keys: RwLock<(Key, Option<Key>)>,
    random: SystemRandom,
}

struct Key {
    name: [u8; NAME],
    secret: Zeroizing<[u8; SECRET]>,
    cipher: LessSafeKey,
    /// When it began, seconds since 1970.
    born: u64,
}

impl Tickets {
    /// With a new key.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new() -> Result<Tickets, String> {
        let random = SystemRandom::new();
        let key = Key::new(&random, now()).ok_or("the system gives no random numbers")?;
        Ok(Tickets { keys: RwLock::new((key, None)), random })
    }

    /// The keys, for another process of the same gateway and nobody else.
    pub fn export(&self) -> Zeroizing<Vec<u8>> {
        let keys = self.keys.read();
        // Not grown on the way: that would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + 2 * EXPORTED));
        bytes.push(FORMAT);
        for key in std::iter::once(&keys.0).chain(&keys.1) {
            bytes.extend_from_slice(&key.name);
            bytes.extend_from_slice(&*key.secret);
            bytes.extend_from_slice(&key.born.to_be_bytes());
        }
        bytes
    }

    /// Goes on with the keys of another process.
    ///
    /// # Errors
    /// These are not what [`Tickets::export`] gives; then nothing has changed.
    pub fn import(&self, bytes: &[u8]) -> Result<(), String> {
        let wrong = || "these are not the keys of session tickets".to_owned();
        let (format, keys) = bytes.split_first().ok_or_else(wrong)?;
        if *format != FORMAT || keys.len() % EXPORTED != 0 || keys.len() > 2 * EXPORTED {
            return Err(wrong());
        }
        let mut keys = keys.chunks_exact(EXPORTED).map(Key::read);
        let current = keys.next().flatten().ok_or_else(wrong)?;
        let previous = keys.next().map(|key| key.ok_or_else(wrong)).transpose()?;
        *self.keys.write() = (current, previous);
        Ok(())
    }

    fn seal(&self, context: &[u8], plain: &[u8], now: u64) -> Option<Vec<u8>> {
        self.turn(now);
        let keys = self.keys.read();
        keys.0.seal(&self.random, context, plain)
    }

    fn open(&self, context: &[u8], ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, sealed) = ticket.split_first_chunk::<NAME>()?;
        let keys = self.keys.read();
        let mut keys = std::iter::once(&keys.0).chain(&keys.1);
        keys.find(|key| key.name == *name && now < key.born + 2 * TURN)?.open(context, sealed)
    }

    /// Takes a new key when the time of the current one is over.
    fn turn(&self, now: u64) {
        let is_over = |keys: &(Key, Option<Key>)| now >= keys.0.born + TURN;
        if !is_over(&self.keys.read()) {
            return;
        }
        let mut keys = self.keys.write();
        // Without random numbers the old key has to do.
        if is_over(&keys)
            && let Some(key) = Key::new(&self.random, now)
        {
            keys.1 = Some(std::mem::replace(&mut keys.0, key));
        }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Key {
    fn new(random: &SystemRandom, born: u64) -> Option<Key> {
        let (mut name, mut secret) = ([0; NAME], Zeroizing::new([0; SECRET]));
        random.fill(&mut name).ok()?;
        random.fill(&mut *secret).ok()?;
        Key::from_parts(name, secret, born)
    }

    fn from_parts(name: [u8; NAME], secret: Zeroizing<[u8; SECRET]>, born: u64) -> Option<Key> {
        let cipher = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &*secret).ok()?);
        Some(Key { name, secret, cipher, born })
    }

    fn read(exported: &[u8]) -> Option<Key> {
        let (name, rest) = exported.split_first_chunk()?;
        let (secret, born) = rest.split_first_chunk()?;
        // A clock that was wrong must not make a key that never ends.
        let born = u64::from_be_bytes(born.try_into().ok()?).min(now());
        Key::from_parts(*name, Zeroizing::new(*secret), born)
    }

    /// The key's name, a random nonce (a counter would tell how many tickets there are), the sealed session.
    fn seal(&self, random: &SystemRandom, context: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + CHACHA20_POLY1305.tag_len());
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let session = ticket.get_mut(NAME + NONCE_LEN..)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.cipher.seal_in_place_separate_tag(nonce, Aad::from(context), session).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut session = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.cipher.open_in_place(nonce, Aad::from(context), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

/// The tickets of one listener.
#[derive(Debug)]
pub(super) struct Bound {
    tickets: Arc<Tickets>,
    /// Of the rules about client certificates.
    context: [u8; 32],
}

impl Bound {
    pub(super) fn new(tickets: Arc<Tickets>, context: [u8; 32]) -> Bound {
        Bound { tickets, context }
    }
}

impl ProducesTickets for Bound {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TURN as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.seal(&self.context, plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.tickets.open(&self.context, cipher, now())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_opened_by_two_turns_of_keys_and_no_more() {
        let tickets = Tickets::new().unwrap();
        let begin = now();
        let ticket = tickets.seal(b"a", b"session", begin).unwrap();
        let open = |at: u64| tickets.open(b"a", &ticket, at);
        assert_eq!(open(begin).as_deref(), Some(&b"session"[..]));
        let later = tickets.seal(b"a", b"later", begin + TURN).unwrap();
        assert_ne!(ticket[..NAME], later[..NAME], "another key");
        assert_eq!(open(begin + TURN).as_deref(), Some(&b"session"[..]));
        assert_eq!(open(begin + 2 * TURN), None, "its time is over, whoever asks");
        tickets.seal(b"a", b"", begin + 2 * TURN).unwrap();
        assert_eq!(open(begin + TURN), None, "its key is gone");
        assert!(tickets.open(b"a", &later, begin + 2 * TURN).is_some());
    }

    #[test]
    fn a_ticket_is_good_only_under_the_rules_it_was_made_under() {
        let tickets = Arc::new(Tickets::new().unwrap());
        let (one, other) = (Bound::new(tickets.clone(), [1; 32]), Bound::new(tickets, [2; 32]));
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(other.decrypt(&ticket), None);
        assert_ne!(one.encrypt(b"session").unwrap(), ticket, "no two are alike");
        assert!(!ticket.windows(7).any(|window| window == b"session"));
    }

    #[test]
    fn what_was_changed_or_cut_is_not_opened() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.seal(b"", b"session", now()).unwrap();
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert_eq!(tickets.open(b"", &changed, now()), None, "{place}");
            assert_eq!(tickets.open(b"", &ticket[..place], now()), None, "{place}");
        }
    }

    #[test]
    fn another_process_goes_on_with_the_keys() {
        let (old, new) = (Tickets::new().unwrap(), Tickets::new().unwrap());
        let first = old.seal(b"", b"first", now()).unwrap();
        new.import(&old.export()).unwrap();
        assert_eq!(new.open(b"", &first, now()).as_deref(), Some(&b"first"[..]));
        // With the key before, too.
        let second = old.seal(b"", b"second", now() + TURN).unwrap();
        new.import(&old.export()).unwrap();
        assert_eq!(new.open(b"", &first, now()).as_deref(), Some(&b"first"[..]));
        assert_eq!(new.open(b"", &second, now()).as_deref(), Some(&b"second"[..]));
    }

    #[test]
    fn what_is_no_export_changes_nothing() {
        let tickets = Tickets::new().unwrap();
        let before = tickets.export();
        for wrong in [&[][..], &[FORMAT], &[2], &before[..before.len() - 1], &[FORMAT; 1 + 3 * EXPORTED]] {
            assert!(tickets.import(wrong).is_err(), "{} bytes", wrong.len());
        }
        assert_eq!(*tickets.export(), *before);
        assert_eq!(format!("{tickets:?}"), "Tickets");
    }
}
