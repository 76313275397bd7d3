//! What keys are taken, and for what.

use super::attacks::spki_pem;
use super::*;
use crate::auth::jwt::keys::{MOST_BYTES, MOST_KEYS};

#[track_caller]
fn assert_skipped(jwk: Value) {
    let keys = set(std::slice::from_ref(&jwk));
    assert_eq!((keys.len(), keys.skipped()), (0, 1), "{jwk}");
}

#[test]
fn keys_that_are_not_for_this() {
    let over = |jwk: Value, over: Value| with(jwk, over);
    assert_skipped(over(p256().jwk("k"), json!({"use": "enc"})));
    assert_skipped(over(p256().jwk("k"), json!({"key_ops": ["sign"]})));
    assert_skipped(over(p256().jwk("k"), json!({"alg": "ES384"})));
    assert_skipped(over(p256().jwk("k"), json!({"alg": "HS256"})));
    assert_skipped(over(p256().jwk("k"), json!({"alg": "ECDH-ES"})));
    assert_skipped(over(rsa_key().jwk("k"), json!({"alg": "RSA-OAEP"})));
    assert_skipped(over(rsa_key().jwk("k"), json!({"alg": "none"})));
    assert_skipped(over(p256().jwk("k"), json!({"d": "AA"})));
    assert_skipped(over(p256().jwk("k"), json!({"crv": "secp256k1"})));
    assert_skipped(over(p256().jwk("k"), json!({"kid": 7})));
    assert_skipped(over(ed25519().jwk("k"), json!({"crv": "Ed448"})));
    assert_skipped(Signer::Secret(vec![1; 64]).jwk("k"));
    for other in [json!({}), json!(null), json!("x"), json!({"kty": "lattice"}), json!({"kty": "RSA"})] {
        assert_skipped(other);
    }
}

#[test]
fn keys_that_are_weak_or_broken() {
    let good = rsa_key().jwk("k");
    let modulus = BASE64.decode(good["n"].as_str().unwrap()).unwrap();
    for n in [&modulus[..128], &modulus[..255], &[], &[0; 256]] {
        assert_skipped(with(good.clone(), json!({"n": BASE64.encode(n)})));
    }
    let even = [&modulus[..255], &[2]].concat();
    assert_skipped(with(good.clone(), json!({"n": BASE64.encode(even)})));
    let huge = [&[0xff; 1024], modulus.as_slice()].concat();
    assert_skipped(with(good.clone(), json!({"n": BASE64.encode(huge)})));
    for e in ["", "AQ", "Ag", "AAE", "_____w8", "AQAB=", "A Q"] {
        assert_skipped(with(good.clone(), json!({ "e": e })));
    }
    let point = p256().jwk("k");
    let mut x = BASE64.decode(point["x"].as_str().unwrap()).unwrap();
    x[31] ^= 1;
    let y_of_another = p256().jwk("k")["y"].clone();
    assert_skipped(with(point.clone(), json!({"y": y_of_another})));
    assert_skipped(with(point.clone(), json!({"x": BASE64.encode(&x[..31])})));
    assert_skipped(with(point.clone(), json!({"x": BASE64.encode([0; 32]), "y": BASE64.encode([0; 32])})));
    assert_skipped(with(point, json!({"crv": "P-384"})));
    assert_skipped(with(ed25519().jwk("k"), json!({"x": BASE64.encode([1; 31])})));
}

#[test]
fn a_bad_key_does_no_harm_to_others() {
    let key = p256();
    let keys = set(&[json!(null), Signer::Secret(vec![1; 64]).jwk("s"), key.jwk("k")]);
    assert_eq!((keys.len(), keys.skipped()), (1, 2));
    let token = key.token(json!({"alg": "ES256", "kid": "k"}), json!({}));
    assert!(verify(&token, &keys, &[Algorithm::ES256]).is_ok());
}

#[test]
fn sets_are_bounded() {
    let jwk = ed25519().jwk("k");
    let many = set(&vec![jwk.clone(); MOST_KEYS + 5]);
    assert_eq!((many.len(), many.skipped()), (MOST_KEYS, 5));
    assert!(KeySet::from_jwks(&vec![b' '; MOST_BYTES + 1]).is_err());
    for no_set in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, "x", &"[".repeat(100_000)] {
        assert!(KeySet::from_jwks(no_set.as_bytes()).is_err(), "{no_set}");
    }
    assert_eq!(KeySet::from_jwks(jwk.to_string().as_bytes()).unwrap().len(), 1);
    assert!(set(&[]).is_empty());
}

#[test]
fn tokens_that_name_no_key() {
    let signers: Vec<Signer> = std::iter::repeat_with(p256).take(5).collect();
    let token = |signer: &Signer| signer.token(json!({"alg": "ES256"}), json!({}));
    let named: Vec<Value> = signers.iter().map(|signer| signer.jwk("k")).collect();
    let four = set(&[named[..4].to_vec(), vec![rsa_key().jwk("r")]].concat());
    signers[..4]
        .iter()
        .for_each(|signer| assert!(verify(&token(signer), &four, &[Algorithm::ES256]).is_ok()));
    assert_refused(&token(&signers[4]), &four, &[Algorithm::ES256], Why::Signature);
    assert_refused(&token(&signers[4]), &set(&named), &[Algorithm::ES256], Why::UnknownKey);
    // A key without id may be meant by any, but does not hide that a named one is not there.
    let nameless = set(&[with(signers[0].jwk(""), json!({"kid": null}))]);
    let named = |signer: &Signer| signer.token(json!({"alg": "ES256", "kid": "new"}), json!({}));
    assert!(verify(&named(&signers[0]), &nameless, &[Algorithm::ES256]).is_ok());
    let refused = verify(&named(&signers[1]), &nameless, &[Algorithm::ES256]).unwrap_err();
    assert_eq!(refused, Refused::UnknownKid("new".to_owned()));
}

#[test]
fn pem() {
    let certified = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&certified).unwrap();
    let from_key = KeySet::from_pem(certified.public_key_pem().as_bytes()).unwrap();
    let from_certificate = KeySet::from_pem(certificate.pem().as_bytes()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(
        &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        &certified.serialize_der(),
        &SystemRandom::new(),
    );
    let token = Signer::Curve(pair.unwrap()).token(json!({"alg": "ES256", "kid": "whatever"}), json!({}));
    for keys in [from_key, from_certificate] {
        assert!(verify(&token, &keys, &[Algorithm::ES256]).is_ok());
        assert_refused(
            &p256().token(json!({"alg": "ES256", "kid": "x"}), json!({})),
            &keys,
            &[Algorithm::ES256],
            Why::Signature,
        );
    }
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(KeySet::from_pem(key.public_key_pem().as_bytes()).unwrap().len(), 1);
    }
    assert!(KeySet::from_pem(certified.serialize_pem().as_bytes()).is_err(), "a private key");
    let small = [&[0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00], &[0xff; 128][..], &[2, 3, 1, 0, 1]].concat();
    for bad in ["", "x", &spki_pem(&small), &spki_pem(b"")] {
        assert!(KeySet::from_pem(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn broken_der_is_refused() {
    let pair = rsa_key();
    let pem = spki_pem(pair.public());
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    assert!(crate::auth::jwt::der::public_key(&der).is_some());
    for length in 0..der.len() {
        assert_eq!(crate::auth::jwt::der::public_key(&der[..length]), None);
        assert_eq!(crate::auth::jwt::der::certificate_key(&der[..length]), None);
    }
}

#[test]
fn secrets_have_the_length_of_the_hash() {
    use Algorithm::{HS256, HS384, HS512};
    assert!(KeySet::from_secret(&[1; 31]).is_err());
    for (length, supported) in
        [(32, &[HS256][..]), (47, &[HS256]), (48, &[HS256, HS384]), (64, &[HS256, HS384, HS512])]
    {
        let keys = KeySet::from_secret(&vec![1; length]).unwrap();
        let found: Vec<_> =
            [HS256, HS384, HS512].into_iter().filter(|algorithm| keys.supports(*algorithm)).collect();
        assert_eq!(found, supported, "{length}");
    }
}
