//! Dates, issuers and audiences.

use super::*;

/// What becomes of a good token with these claims.
fn judged(claims: Value) -> Result<Verified, Refused> {
    static KEY: &[u8] = &[3; 32];
    let signer = Signer::Secret(KEY.to_vec());
    let token = signer.token(json!({"alg": "HS256"}), claims);
    verify(&token, &KeySet::from_secret(KEY).unwrap(), &[Algorithm::HS256])
}

#[track_caller]
fn assert_why(claims: Value, why: Why) {
    assert_eq!(judged(claims.clone()).map(|_| ()), Err(Refused::Because(why)), "{claims}");
}

#[test]
fn expiry() {
    assert!(judged(json!({"exp": NOW - 29})).is_ok());
    assert_why(json!({"exp": NOW - 30}), Why::Expired);
    assert_why(json!({"exp": NOW - 31}), Why::Expired);
    assert!(judged(json!({"exp": NOW as f64 + 0.5})).is_ok());
    assert_why(json!({"exp": (NOW - 30) as f64 + 0.9}), Why::Expired);
    assert_why(json!({"exp": 0}), Why::Expired);
    assert_why(json!({"exp": null}), Why::NoExpiry);
    for exp in [
        json!("1900000000"),
        json!(-1),
        json!(-0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(253_402_300_800_u64),
        json!(true),
        json!([NOW + 60]),
        json!({}),
    ] {
        assert_why(json!({ "exp": exp }), Why::Malformed);
    }
    let verified = judged(json!({"exp": 253_402_300_799_u64})).unwrap();
    assert_eq!(verified.good_until, 253_402_300_829);
}

#[test]
fn beginning() {
    for name in ["nbf", "iat"] {
        assert!(judged(json!({ name: NOW })).is_ok());
        assert_eq!(judged(json!({ name: NOW + 30 })).unwrap().good_from, NOW);
        assert_why(json!({ name: NOW + 31 }), Why::NotYetValid);
        assert_why(json!({ name: (NOW + 30) as f64 + 0.5 }), Why::NotYetValid);
        assert_why(json!({ name: "0" }), Why::Malformed);
        assert_why(json!({ name: -1 }), Why::Malformed);
        assert_why(json!({ name: 1e300 }), Why::Malformed);
        assert_eq!(judged(json!({ name: 0 })).unwrap().good_from, 0);
    }
}

#[test]
fn audience() {
    for aud in [json!("api"), json!("other"), json!(["api"]), json!(["x", "other"])] {
        assert!(judged(json!({ "aud": aud })).is_ok());
    }
    for aud in [
        json!(null),
        json!(""),
        json!("ap"),
        json!("apis"),
        json!("API"),
        json!("api other"),
        json!([]),
        json!(["ap", "apis"]),
    ] {
        assert_why(json!({ "aud": aud }), Why::Audience);
    }
    for aud in [json!(1), json!({"api": 1}), json!(["api", 1]), json!([["api"]])] {
        assert_why(json!({ "aud": aud }), Why::Malformed);
    }
}

#[test]
fn any_audience() {
    let secret = [3; 32];
    let token = Signer::Secret(secret.to_vec()).token(json!({"alg": "HS256"}), json!({"aud": null}));
    let verifier = Verifier::new(Spec { audience: None, ..spec(&[Algorithm::HS256]) });
    assert!(verifier.verify(&token, &KeySet::from_secret(&secret).unwrap(), NOW).is_ok());
}

#[test]
fn issuer() {
    for iss in [
        json!(null),
        json!(""),
        json!("https://id.example/"),
        json!("HTTPS://id.example"),
        json!("https://id.example.evil"),
        json!(["https://id.example"]),
        json!("https://id.exampl"),
        json!("https://id.example\0"),
    ] {
        assert_why(json!({ "iss": iss }), Why::Issuer);
    }
}
