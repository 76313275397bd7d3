//! Just enough DER (X.690) to find a public key in a `SubjectPublicKeyInfo` or a certificate (RFC 5280 section 4.1).

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: the version of a certificate.
const VERSION: u8 = 0xa0;

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// A public key, as it stands; nothing of it has been checked.
#[derive(Debug, PartialEq, Eq)]
pub enum PublicKey<'a> {
    /// Big endian numbers.
    Rsa {
        /// n.
        modulus: &'a [u8],
        /// e.
        exponent: &'a [u8],
    },
    /// A point of the curve.
    P256(&'a [u8]),
    /// A point of the curve.
    P384(&'a [u8]),
    /// 32 bytes.
    Ed25519(&'a [u8]),
}

/// The key of a `SubjectPublicKeyInfo`, if it is of a known kind.
pub fn public_key(der: &[u8]) -> Option<PublicKey<'_>> {
    let (info, []) = value(SEQUENCE, der)? else { return None };
    let (algorithm, rest) = value(SEQUENCE, info)?;
    let (bits, []) = value(BIT_STRING, rest)? else { return None };
    // The first byte counts bits that do not belong to it.
    let (0, key) = bits.split_first()? else { return None };
    let (kind, parameters) = value(OID, algorithm)?;
    match kind {
        RSA => rsa(key),
        ED25519 => Some(PublicKey::Ed25519(key)),
        ELLIPTIC => match value(OID, parameters)? {
            (P256, []) => Some(PublicKey::P256(key)),
            (P384, []) => Some(PublicKey::P384(key)),
            _ => None,
        },
        _ => None,
    }
}

/// `RSAPublicKey` of RFC 8017 appendix A.1.1.
fn rsa(der: &[u8]) -> Option<PublicKey<'_>> {
    let (numbers, []) = value(SEQUENCE, der)? else { return None };
    let (modulus, rest) = value(INTEGER, numbers)?;
    let (exponent, []) = value(INTEGER, rest)? else { return None };
    let is_negative = |number: &[u8]| number.first().is_none_or(|first| *first >= 0x80);
    (!is_negative(modulus) && !is_negative(exponent)).then_some(PublicKey::Rsa { modulus, exponent })
}

/// The key of a certificate. Who signed it, and for how long, does not matter to us.
pub fn certificate_key(der: &[u8]) -> Option<PublicKey<'_>> {
    let (certificate, _) = value(SEQUENCE, der)?;
    let (to_be_signed, _) = value(SEQUENCE, certificate)?;
    let after_version = value(VERSION, to_be_signed).map_or(to_be_signed, |(_, rest)| rest);
    let (_serial, rest) = value(INTEGER, after_version)?;
    // Signature algorithm, issuer, validity, subject.
    let rest = (0..4).try_fold(rest, |rest, _| Some(value(SEQUENCE, rest)?.1))?;
    let (_, after) = value(SEQUENCE, rest)?;
    public_key(rest.get(..rest.len() - after.len())?)
}

/// The value with this tag at the beginning, and what follows it.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (length, rest) = length(rest)?;
    (*found == tag).then(|| rest.split_at_checked(length))?
}

/// A length of at most three bytes; more than 16 MiB is no key.
fn length(der: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = der.split_first()?;
    if *first < 0x80 {
        return Some((usize::from(*first), rest));
    }
    let (bytes, rest) = rest.split_at_checked(usize::from(*first & 0x7f))?;
    let is_shortest = bytes.first().is_some_and(|byte| *byte != 0) && bytes != [0];
    if !is_shortest || bytes.len() > 3 {
        return None;
    }
    let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    (length >= 0x80).then_some((length, rest))
}
