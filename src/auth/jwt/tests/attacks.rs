//! Attacks on JOSE that have been published; all of them are refused.

use super::*;
use Algorithm::{ES256, ES384, EdDSA, HS256, PS256, RS256};
use proptest::prelude::*;

#[test]
fn a_token_without_signature() {
    let key = p256();
    let keys = set(&[key.jwk("k")]);
    for name in
        ["none", "None", "NONE", "nOnE", "", "es256", "ES256 ", "ES512", "ES256K", "HS257", "\\u006eone"]
    {
        let header = BASE64.encode(format!(r#"{{"alg":"{name}","kid":"k"}}"#));
        let payload = BASE64.encode(good_claims().to_string());
        assert_refused(&format!("{header}.{payload}."), &keys, &[ES256], Why::Malformed);
        assert_refused(&format!("{header}.{payload}.AA"), &keys, &[ES256], Why::Algorithm);
    }
    for header in [
        r#"{"alg":"ES256","x":"\ud800"}"#,
        r#"{"alg":"ES256","x":{"y":1,"y":2}}"#,
        r#"{"kid":"k"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["ES256"]}"#,
        r#"{"alg":1}"#,
        "[]",
        "\"\"",
        "null",
    ] {
        assert_refused(&key.raw(header, &good_claims().to_string()), &keys, &[ES256], Why::Malformed);
    }
}

/// CVE-2015-9235: the public key as the secret of an HMAC.
#[test]
fn a_public_key_as_secret() {
    let pair = rsa_key();
    let jwk = pair.jwk("k");
    let pem = spki_pem(pair.public());
    let keys = [set(std::slice::from_ref(&jwk)), KeySet::from_pem(pem.as_bytes()).unwrap()];
    let modulus = BASE64.decode(jwk["n"].as_str().unwrap()).unwrap();
    let secrets = [
        pem.clone().into_bytes(),
        pem.trim_end().as_bytes().to_vec(),
        pair.public().to_vec(),
        modulus,
        jwk["n"].as_str().unwrap().as_bytes().to_vec(),
        jwk.to_string().into_bytes(),
        Vec::new(),
    ];
    for secret in secrets {
        let token = Signer::Secret(secret).token(json!({"alg": "HS256", "kid": "k"}), json!({}));
        for keys in &keys {
            assert_refused(&token, keys, &[RS256], Why::Algorithm);
            // Not even where HMAC is accepted, which the configuration does not allow together with public keys.
            assert!(verify(&token, keys, &[RS256, HS256]).is_err());
        }
    }
    let genuine = pair.token(json!({"alg": "RS256", "kid": "k"}), json!({}));
    keys.iter().for_each(|keys| assert!(verify(&genuine, keys, &[RS256]).is_ok()));
}

/// A `SubjectPublicKeyInfo` around an `RSAPublicKey`.
pub(super) fn spki_pem(rsa: &[u8]) -> String {
    let head = [
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
        0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00,
    ];
    let text = base64::engine::general_purpose::STANDARD.encode([&head, rsa].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn a_kid_that_leads_elsewhere() {
    let keys = set(&[p256().jwk("k")]);
    for kid in
        ["../../dev/null", "/dev/null", "k' OR '1'='1", "k\u{0}", "", "K", "k ", "https://evil/k", "|id"]
    {
        for signer in [Signer::Secret(Vec::new()), p256()] {
            let token = signer.token(json!({"alg": "ES256", "kid": kid}), json!({}));
            let refused = verify(&token, &keys, &[ES256]).unwrap_err();
            assert_eq!(refused, Refused::UnknownKid(kid.to_owned()));
        }
    }
    let long = p256().token(json!({"alg": "ES256", "kid": "k".repeat(257)}), json!({}));
    assert_refused(&long, &keys, &[ES256], Why::Malformed);
    let number = p256().token(json!({"alg": "ES256", "kid": 1}), json!({}));
    assert_refused(&number, &keys, &[ES256], Why::Malformed);
}

/// CVE-2018-0114 and its like: the token brings its key, or says where it is.
#[test]
fn a_key_in_the_token() {
    let (ours, theirs) = (p256(), p256());
    let keys = set(&[ours.jwk("k")]);
    let brought = [
        json!({"jwk": theirs.jwk("k")}),
        json!({"jku": "https://evil.example/jwks"}),
        json!({"x5u": "https://evil.example/cert"}),
        json!({"x5c": ["MIIB"]}),
        json!({"x5t": "abc", "x5t#S256": "abc"}),
    ];
    for header in brought {
        let header = with(json!({"alg": "ES256", "kid": "k"}), header);
        assert_refused(&theirs.token(header.clone(), json!({})), &keys, &[ES256], Why::Signature);
        assert!(verify(&ours.token(header, json!({})), &keys, &[ES256]).is_ok());
    }
}

#[test]
fn members_that_stand_twice() {
    let key = p256();
    let keys = set(&[key.jwk("k")]);
    let claims = good_claims().to_string();
    for header in [
        r#"{"alg":"none","alg":"ES256"}"#,
        r#"{"alg":"ES256","\u0061lg":"ES256"}"#,
        r#"{"alg":"ES256","kid":"k","kid":"k"}"#,
        r#"{"alg":"ES256","x":1,"x":1}"#,
        r#"{"alg":"ES256","x":1,"\u0078":1}"#,
    ] {
        assert_refused(&key.raw(header, &claims), &keys, &[ES256], Why::Malformed);
    }
    for more in [
        r#""sub":"root""#,
        r#""\u0073ub":"root""#,
        r#""exp":9999999999"#,
        r#""a":{"b":1,"b":2}"#,
        r#""a":[{"b":1,"\u0062":2}]"#,
    ] {
        let claims = format!("{},{more}}}", claims.trim_end_matches('}'));
        assert_refused(&key.raw(r#"{"alg":"ES256"}"#, &claims), &keys, &[ES256], Why::Malformed);
    }
    let escaped = claims.replace("\"sub\"", "\"\\u0073ub\"");
    assert!(verify(&key.raw(r#"{"\u0061lg":"ES256"}"#, &escaped), &keys, &[ES256]).is_ok());
}

#[test]
fn signatures_of_the_wrong_form() {
    let key = p256();
    let keys = set(&[key.jwk("k")]);
    let token = key.token(json!({"alg": "ES256", "kid": "k"}), json!({}));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let raw = BASE64.decode(signature).unwrap();
    let (r, s) = raw.split_at(32);
    let forged = [
        raw[..63].to_vec(),
        raw[..32].to_vec(),
        raw[..1].to_vec(),
        [raw.as_slice(), &[0]].concat(),
        [&[0], raw.as_slice()].concat(),
        [s, r].concat(),
        der_signature(r, s),
        // CVE-2022-21449, "psychic signatures": r and s are 0, or multiples of the order.
        vec![0; 64],
        [[0; 32], [1; 32]].concat(),
        ORDER.repeat(2),
        [r, ORDER].concat(),
        vec![0xff; 64],
        vec![0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00],
    ];
    for forged in forged {
        let token = format!("{signed}.{}", BASE64.encode(forged));
        assert_refused(&token, &keys, &[ES256], Why::Signature);
    }
    assert_refused(&format!("{signed}."), &keys, &[ES256], Why::Malformed);
    assert_refused(signed, &keys, &[ES256], Why::Malformed);
    assert!(verify(&token, &keys, &[ES256]).is_ok());
}

/// The order of P-256.
const ORDER: &[u8] = &[
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

fn der_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let number = if number[0] >= 0x80 { [&[0], number].concat() } else { number.to_vec() };
        [&[2, u8::try_from(number.len()).unwrap()], number.as_slice()].concat()
    };
    let numbers = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(numbers.len()).unwrap()], numbers.as_slice()].concat()
}

#[test]
fn a_key_of_another_kind() {
    let (small, large, edwards, rsa) = (p256(), p384(), ed25519(), rsa_key());
    let keys = set(&[small.jwk("p256"), large.jwk("p384"), edwards.jwk("ed"), rsa.jwk("rsa")]);
    let all = [ES256, ES384, EdDSA, RS256, PS256];
    for (signer, header) in [
        (&large, json!({"alg": "ES256", "kid": "p384"})),
        (&small, json!({"alg": "ES384", "kid": "p256"})),
        (&edwards, json!({"alg": "ES256", "kid": "ed"})),
        (&small, json!({"alg": "RS256", "kid": "p256"})),
        (&rsa, json!({"alg": "EdDSA", "kid": "rsa"})),
    ] {
        assert_refused(&signer.token(header, json!({})), &keys, &all, Why::Algorithm);
    }
    for (signer, header) in [
        (&large, json!({"alg": "ES256", "kid": "p256"})),
        (&large, json!({"alg": "ES256"})),
        (&edwards, json!({"alg": "ES256"})),
        (&rsa, json!({"alg": "ES384"})),
    ] {
        assert_refused(&signer.token(header, json!({})), &keys, &all, Why::Signature);
    }
    let only_pss = set(&[with(rsa.jwk("rsa"), json!({"alg": "PS256"}))]);
    let token = rsa.token(json!({"alg": "RS256", "kid": "rsa"}), json!({}));
    assert_refused(&token, &only_pss, &[RS256, PS256], Why::Algorithm);
    let relabelled = token.replacen(
        token.split('.').next().unwrap(),
        &BASE64.encode(json!({"alg": "PS256", "kid": "rsa"}).to_string()),
        1,
    );
    assert_refused(&relabelled, &only_pss, &[RS256, PS256], Why::Signature);
    // Pinned by the configuration as well.
    assert_refused(&token, &set(&[rsa.jwk("rsa")]), &[PS256], Why::Algorithm);
}

#[test]
fn tokens_of_another_form() {
    let key = p256();
    let keys = set(&[key.jwk("k")]);
    let token = key.token(json!({"alg": "ES256", "kid": "k"}), json!({}));
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { unreachable!() };
    let padded = format!("{header}==.{payload}.{signature}");
    let five = format!("{header}.AA.AA.AA.AA");
    let json = format!(r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#);
    for token in [
        "",
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a.b.c",
        &five,
        &json,
        &padded,
        &format!("{token}."),
        &format!(".{token}"),
        &format!("{token}.{signature}"),
        &format!("{token}="),
        &format!("{token}\n"),
        &format!(" {token}"),
        &format!("{header}.{payload}.{signature} "),
        &format!("{header}..{signature}"),
        &format!(".{payload}.{signature}"),
        &format!("{token}\0"),
        &format!("{header}\0.{payload}.{signature}"),
        &format!("{header}.{payload}.{signature}AAA"),
        &format!("{header}.{payload}.{}", signature.replace(['-', '_'], "+") + "+"),
        "e30.e30.e30",
        "é.é.é",
    ] {
        let refused = verify(token, &keys, &[ES256]).unwrap_err();
        assert_eq!(refused, Refused::Because(Why::Malformed), "{token}");
    }
    for signed in
        [format!("{header}. {payload}"), format!("{header}.{payload}=="), format!("{header}.{payload}\n")]
    {
        let signature = BASE64.encode(key.sign("ES256", signed.as_bytes()));
        assert_refused(&format!("{signed}.{signature}"), &keys, &[ES256], Why::Malformed);
    }
    // The last character of 64 bytes carries four bits that must be zero.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).unwrap();
    for other in place + 1..place + 16 {
        let twin = format!("{}{}", &token[..token.len() - 1], &alphabet[other..=other]);
        assert_refused(&twin, &keys, &[ES256], Why::Malformed);
    }
    let huge = key.token(json!({"alg": "ES256", "kid": "k"}), json!({"x": "a".repeat(8192)}));
    assert_refused(&huge, &keys, &[ES256], Why::TooLarge);
    assert_refused(&"a.".repeat(1 << 20), &keys, &[ES256], Why::TooLarge);
    for payload in ["", "[]", "null", "\"a\"", "{", "{}{}", "\u{feff}{}", &"[".repeat(4000)] {
        assert_refused(&key.raw(r#"{"alg":"ES256"}"#, payload), &keys, &[ES256], Why::Malformed);
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(2000), "]".repeat(2000));
    assert_refused(&key.raw(r#"{"alg":"ES256"}"#, &deep), &keys, &[ES256], Why::Malformed);
}

#[test]
fn extensions_that_must_be_understood() {
    let key = p256();
    let keys = set(&[key.jwk("k")]);
    for header in [
        json!({"crit": ["exp"], "exp": 1}),
        json!({"crit": []}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"b64": false}),
        json!({"b64": true}),
        json!({"zip": "DEF"}),
        json!({"enc": "A128GCM"}),
    ] {
        let token = key.token(with(json!({"alg": "ES256", "kid": "k"}), header), json!({}));
        assert_refused(&token, &keys, &[ES256], Why::Critical);
    }
    let unknown = key.token(json!({"alg": "ES256", "kid": "k", "cty": "JWT", "x": {"crit": 1}}), json!({}));
    assert!(verify(&unknown, &keys, &[ES256]).is_ok());
}

#[test]
fn tokens_of_another_kind() {
    let key = p256();
    let keys = set(&[key.jwk("k")]);
    let token = |typ: Value| key.token(json!({"alg": "ES256", "kid": "k", "typ": typ}), json!({}));
    for typ in [
        "logout+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "id_token",
        "JWT ",
        "",
        "application/",
        "application/x/jwt",
    ] {
        assert_refused(&token(json!(typ)), &keys, &[ES256], Why::Type);
    }
    assert_refused(&token(json!(["JWT"])), &keys, &[ES256], Why::Malformed);
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/JWT"] {
        assert!(verify(&token(json!(typ)), &keys, &[ES256]).is_ok(), "{typ}");
    }
    let only_access = Spec { typ: Some(vec!["application/at+JWT".to_owned()]), ..spec(&[ES256]) };
    let only_access = Verifier::new(only_access);
    assert_eq!(
        only_access.verify(&token(json!("JWT")), &keys, NOW).unwrap_err(),
        Refused::Because(Why::Type)
    );
    assert!(only_access.verify(&token(json!("at+jwt")), &keys, NOW).is_ok());
    let any = Verifier::new(Spec { typ: None, ..spec(&[ES256]) });
    assert!(any.verify(&token(json!("logout+jwt")), &keys, NOW).is_ok());
}

#[test]
fn every_changed_bit() {
    for (name, signer) in [("ES256", p256()), ("EdDSA", ed25519()), ("HS256", Signer::Secret(vec![9; 32]))] {
        let keys = match &signer {
            Signer::Secret(secret) => KeySet::from_secret(secret).unwrap(),
            public => set(&[public.jwk("k")]),
        };
        let algorithm = [Algorithm::from_name(name).unwrap()];
        let token = signer.token(json!({"alg": name, "kid": "k"}), json!({}));
        for place in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(verify(&changed, &keys, &algorithm).is_err(), "{changed}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_other_text(place in 0_usize..400, cut in 0_usize..4, put in "[A-Za-z0-9_.=-]{0,4}") {
        static MADE: std::sync::LazyLock<(KeySet, String)> = std::sync::LazyLock::new(|| {
            let key = ed25519();
            (set(&[key.jwk("k")]), key.token(json!({"alg": "EdDSA", "kid": "k"}), json!({})))
        });
        let (keys, token) = &*MADE;
        let place = place % token.len();
        let end = (place + cut).min(token.len());
        let changed = format!("{}{put}{}", &token[..place], &token[end..]);
        prop_assert_eq!(verify(&changed, keys, &[EdDSA]).is_ok(), changed == *token);
    }
}
