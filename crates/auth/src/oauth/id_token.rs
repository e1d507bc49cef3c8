//! ID tokens (OpenID Connect Core, section 3.1.3.7): whose word one is, for whom, about whom, and until when.
//!
//! Keys come from the issuer's key set alone: what a token's header says of keys (`jwk`, `jku`, `x5c`, `x5u`) is not read. A key
//! verifies by the one algorithm that its kind has, so `none` and HMAC are no algorithms here.

use super::model::OAuthError;
use crate::token::compact::Compact;
use crate::token::keys::{KeyKind, VerifyingKey};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use mana_kernel::secret::sha256;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use time::OffsetDateTime;

/// Bytes of a token at most.
pub(super) const MAX_TOKEN: usize = 16 * 1024;
/// Keys of a set that are looked at.
const MAX_KEYS: usize = 32;
/// Bits of an RSA key at least; verifying with a shorter one fails as well.
const MIN_RSA_BITS: usize = 2048;
/// Seconds that the issuer's clock may be off.
const LEEWAY: i64 = 60;

/// The keys that an issuer signs with now.
#[derive(Debug)]
pub(super) struct KeySet(Vec<IssuerKey>);

#[derive(Debug)]
struct IssuerKey {
    kid: Option<String>,
    key: VerifyingKey,
}

impl KeySet {
    /// Reads a set (RFC 7517). Keys that verify nothing here are left out; none if it is no set.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json).ok()?;
        Some(Self(set.keys.into_iter().take(MAX_KEYS).filter_map(IssuerKey::read).collect()))
    }

    /// The keys that may have signed a token with such a header.
    fn find<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a VerifyingKey> {
        self.0
            .iter()
            .filter(|key| header.kid.is_none() || key.kid == header.kid)
            .map(|key| &key.key)
            .filter(|key| key.kind().algorithm() == header.alg)
    }
}

impl IssuerKey {
    fn read(json: Value) -> Option<Self> {
        let mut jwk: Jwk = serde_json::from_value(json).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let kid = jwk.common.key_id.clone();
        jwk.common.key_id.get_or_insert_default();
        let algorithm = jwk.common.key_algorithm;
        let key = VerifyingKey::from_jwk(jwk).ok()?;
        let own = match key.kind() {
            KeyKind::Rs256 { bits } if bits < MIN_RSA_BITS => return None,
            KeyKind::Rs256 { .. } => KeyAlgorithm::RS256,
            KeyKind::Es256 => KeyAlgorithm::ES256,
            KeyKind::EdDsa => KeyAlgorithm::EdDSA,
        };
        let is_fit = algorithm.is_none_or(|algorithm| algorithm == own);
        is_fit.then_some(Self { kid, key })
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// What must be understood (RFC 7515, section 4.1.11): nothing is.
    crit: Option<IgnoredAny>,
}

/// What an ID token says.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    pub(super) nonce: Option<String>,
    pub(super) email: Option<String>,
    email_verified: Option<Flag>,
    /// Microsoft: whether the owner of the address's domain has proven it.
    xms_edov: Option<Flag>,
    /// Google: the organisation whose domain it is.
    pub(super) hd: Option<String>,
    /// Microsoft: the tenant.
    tid: Option<String>,
    pub(super) name: Option<String>,
    pub(super) picture: Option<String>,
}

impl Claims {
    /// Whether the issuer says that it has checked the address.
    pub(super) fn has_verified_email(&self) -> bool {
        self.email_verified.as_ref().is_some_and(Flag::is_set)
    }

    /// From when on the token is refused because of its age.
    pub(super) fn dead_at(&self) -> OffsetDateTime {
        let at = OffsetDateTime::from_unix_timestamp(self.exp.saturating_add(LEEWAY));
        at.unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Whether Microsoft says that the address's domain is the tenant's.
    pub(super) fn has_email_of_own_domain(&self) -> bool {
        self.xms_edov.as_ref().is_some_and(Flag::is_set)
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(audience) => std::slice::from_ref(audience),
            Self::Many(audiences) => audiences,
        }
    }
}

/// A truth value: some issuers write it as text or number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Flag {
    Bool(bool),
    Text(String),
    Number(i64),
}

impl Flag {
    fn is_set(&self) -> bool {
        match self {
            Self::Bool(is_set) => *is_set,
            Self::Text(text) => text == "true" || text == "1",
            Self::Number(number) => *number == 1,
        }
    }
}

/// Whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IssuerRule {
    /// One issuer's.
    Exactly(String),
    /// Those of every tenant: `{tenantid}` stands for what the token itself says (Microsoft).
    EachTenant(String),
}

/// What stands for the tenant in the name of an issuer.
const TENANT: &str = "{tenantid}";

impl IssuerRule {
    /// By the name that the provider's description gives.
    pub(super) fn of(issuer: &str) -> Self {
        if issuer.contains(TENANT) {
            Self::EachTenant(issuer.to_owned())
        } else {
            Self::Exactly(issuer.to_owned())
        }
    }

    /// Whether an answer that names this issuer may be the provider's (RFC 9207).
    pub(super) fn may_name(&self, issuer: &str) -> bool {
        match self {
            Self::Exactly(expected) => issuer == expected,
            Self::EachTenant(template) => template.split_once(TENANT).is_some_and(|(before, after)| {
                let tenant = issuer.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                tenant.is_some_and(is_tenant)
            }),
        }
    }

    fn names(&self, claims: &Claims) -> bool {
        match self {
            Self::Exactly(expected) => claims.iss == *expected,
            Self::EachTenant(template) => claims
                .tid
                .as_deref()
                .is_some_and(|tenant| is_tenant(tenant) && claims.iss == template.replace(TENANT, tenant)),
        }
    }
}

fn is_tenant(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// Which nonce the token must have.
#[derive(Debug, Clone, Copy)]
pub(super) enum NonceRule<'a> {
    /// This one.
    Is(&'a str),
    /// What an app says that it asked with. Never that of a browser's round trip, whoever sends it.
    OfApp {
        /// None if it says none.
        sent: Option<&'a str>,
        /// Whether the token may have one all the same.
        takes_unsent: bool,
        /// Whether the token may have it as it was sent, which whoever has the token can read in it. Its hash shows that the app knows more than
        /// the token says.
        takes_clear: bool,
    },
}

/// What a token must say to be believed.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a IssuerRule,
    /// Whom it may be for, and who may have asked for it.
    pub(super) audiences: &'a [&'a str],
    pub(super) nonce: NonceRule<'a>,
    pub(super) now: OffsetDateTime,
}

/// What became of a token.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is the issuer's word.
    Proven(Box<Claims>),
    /// None of the keys is the one that it names: the issuer may have a new one.
    UnknownKey,
}

/// What tells a token from others: what is signed of it, since one text may have several signatures that are right.
pub(super) fn digest(token: &str) -> [u8; 32] {
    sha256(token.rsplit_once('.').map_or(token, |(message, _)| message).as_bytes())
}

/// Verifies an ID token.
pub(super) fn verify(token: &str, keys: &KeySet, expected: &Expected<'_>) -> Result<Verdict, OAuthError> {
    let refused = OAuthError::NotProven;
    if token.len() > MAX_TOKEN {
        return Err(refused("it is too long"));
    }
    let compact = Compact::split(token).ok_or(refused("it is no token"))?;
    let header: Header = compact.foreign_header().ok_or(refused("its header does not read"))?;
    if header.crit.is_some() {
        return Err(refused("its header asks for what is not understood"));
    }
    if header.typ.as_ref().is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
        return Err(refused("it is of another type"));
    }
    if !["RS256", "ES256", "EdDSA"].contains(&header.alg.as_str()) {
        return Err(refused("its algorithm is none of ours"));
    }
    let mut candidates = keys.find(&header).peekable();
    if candidates.peek().is_none() {
        return Ok(Verdict::UnknownKey);
    }
    if !candidates.any(|key| compact.is_signed_by(key)) {
        return Err(refused("its signature is not the issuer's"));
    }
    let claims: Claims = compact.claims().ok_or(refused("its claims do not read"))?;
    check(&claims, expected)?;
    Ok(Verdict::Proven(Box::new(claims)))
}

fn check(claims: &Claims, expected: &Expected<'_>) -> Result<(), OAuthError> {
    let refused = |why| Err(OAuthError::NotProven(why));
    let is_ours = |audience: &String| expected.audiences.contains(&audience.as_str());
    let now = expected.now.unix_timestamp();
    let (soon, lately) = (now.saturating_add(LEEWAY), now.saturating_sub(LEEWAY));
    let audiences = claims.aud.as_slice();
    if !expected.issuer.names(claims) {
        return refused("its issuer is another");
    }
    if audiences.is_empty() || !audiences.iter().all(is_ours) {
        return refused("it is for somebody else");
    }
    if claims.azp.as_ref().is_some_and(|azp| !is_ours(azp)) || (audiences.len() > 1 && claims.azp.is_none()) {
        return refused("somebody else asked for it");
    }
    if claims.exp <= lately {
        return refused("it has expired");
    }
    if claims.iat > soon || claims.nbf.is_some_and(|nbf| nbf > soon) {
        return refused("it is not good yet");
    }
    if claims.sub.is_empty() || claims.sub.len() > 255 || claims.sub.chars().any(char::is_control) {
        return refused("its subject is none");
    }
    if !has_nonce(claims.nonce.as_deref(), expected.nonce) {
        return refused("its nonce is another");
    }
    Ok(())
}

fn has_nonce(told: Option<&str>, rule: NonceRule<'_>) -> bool {
    match (rule, told) {
        (NonceRule::Is(expected), told) => told == Some(expected),
        (NonceRule::OfApp { sent, .. }, None) => sent.is_none(),
        (NonceRule::OfApp { .. }, Some(told)) if told.starts_with(super::model::Nonce::PREFIX) => false,
        (NonceRule::OfApp { sent: None, takes_unsent, .. }, Some(_)) => takes_unsent,
        (NonceRule::OfApp { sent: Some(sent), takes_clear, .. }, Some(told)) => {
            (takes_clear && told == sent) || told == hex(&sha256(sent.as_bytes()))
        }
    }
}

/// As apps hash the nonce for Apple.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::keys::{SigningKey, generate_pem};
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;

    fn key(kind: KeyKind) -> SigningKey {
        SigningKey::from_pem(&generate_pem(kind).unwrap()).unwrap()
    }

    fn key_set(keys: &[&SigningKey]) -> KeySet {
        let keys: Vec<_> = keys.iter().map(|key| serde_json::to_value(key.jwk()).unwrap()).collect();
        KeySet::read(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn claims() -> Value {
        json!({"iss": "https://issuer.example", "sub": "1", "aud": "us", "exp": NOW + 300, "iat": NOW, "nonce": "n"})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut changed = claims();
        changed[name] = value;
        changed
    }

    fn judge(token: &str, keys: &KeySet, nonce: NonceRule<'_>) -> Result<Verdict, OAuthError> {
        let expected = Expected {
            issuer: &IssuerRule::of("https://issuer.example"),
            audiences: &["us", "our-app"],
            nonce,
            now: OffsetDateTime::from_unix_timestamp(NOW).unwrap(),
        };
        verify(token, keys, &expected)
    }

    #[test]
    fn a_token_is_believed_if_all_of_it_is_right() {
        let key = key(KeyKind::Es256);
        let keys = key_set(&[&key]);
        let judge = |claims: &Value| {
            let token = key.jws(claims.to_string().as_bytes()).unwrap();
            judge(&token, &keys, NonceRule::Is("n")).is_ok()
        };
        for good in [
            claims(),
            with("aud", json!(["us"])),
            with("azp", json!("our-app")),
            with("exp", json!(NOW - 59)),
            with("iat", json!(NOW + 59)),
            with("email_verified", json!("true")),
            with("surprise", json!({"a": 1})),
        ] {
            assert!(judge(&good), "{good}");
        }
        let mut two = with("aud", json!(["us", "our-app"]));
        assert!(!judge(&two), "of several audiences, one must have asked");
        two["azp"] = json!("us");
        assert!(judge(&two));
        for bad in [
            with("iss", json!("https://issuer.example/")),
            with("iss", json!("https://evil.example")),
            with("aud", json!("them")),
            with("aud", json!(["us", "them"])),
            with("aud", json!([])),
            with("azp", json!("them")),
            with("exp", json!(NOW - 60)),
            with("exp", json!("later")),
            with("exp", json!(null)),
            with("iat", json!(NOW + 61)),
            with("nbf", json!(NOW + 61)),
            with("sub", json!("")),
            with("sub", json!("1\n2")),
            with("sub", json!("1".repeat(256))),
            with("sub", json!(1)),
            with("nonce", json!("m")),
            with("nonce", json!(null)),
        ] {
            assert!(!judge(&bad), "{bad}");
        }
    }

    #[test]
    fn a_claim_that_is_there_twice_is_none() {
        let key = key(KeyKind::Es256);
        let twice = claims().to_string().replacen('{', r#"{"sub":"2","#, 1);
        let token = key.jws(twice.as_bytes()).unwrap();
        assert!(judge(&token, &key_set(&[&key]), NonceRule::Is("n")).is_err());
    }

    #[test]
    fn only_the_issuers_key_signs_and_only_by_its_own_algorithm() {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
        let (rsa, other) = (key(KeyKind::Rs256 { bits: 2048 }), key(KeyKind::Rs256 { bits: 2048 }));
        let keys = key_set(&[&rsa]);
        let good = rsa.jws(claims().to_string().as_bytes()).unwrap();
        assert!(matches!(judge(&good, &keys, NonceRule::Is("n")), Ok(Verdict::Proven(_))));
        let foreign = other.jws(claims().to_string().as_bytes()).unwrap();
        assert!(matches!(judge(&foreign, &keys, NonceRule::Is("n")), Ok(Verdict::UnknownKey)));
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (_, body) = message.split_once('.').unwrap();
        let kid = rsa.kid();
        for header in [
            json!({"alg": "none"}),
            json!({"alg": "None", "kid": kid}),
            json!({"alg": "HS256", "kid": kid}),
            json!({"alg": "RS512", "kid": kid}),
            json!({"alg": "RS256", "kid": kid, "crit": ["exp"]}),
            json!({"alg": "RS256", "kid": kid, "typ": "at+jwt"}),
            json!({"alg": "RS256", "kid": kid}),
            json!({"alg": "RS256"}),
            json!({"kid": kid}),
        ] {
            let header = BASE64URL.encode(header.to_string());
            for signature in [signature, ""] {
                let token = format!("{header}.{body}.{signature}");
                assert!(judge(&token, &keys, NonceRule::Is("n")).is_err(), "{header}");
            }
        }
        for token in ["", ".", "..", "a.b.c", &"x".repeat(MAX_TOKEN + 1)] {
            assert!(judge(token, &keys, NonceRule::Is("n")).is_err());
        }
    }

    #[test]
    fn keys_that_verify_nothing_here_are_left_out_and_spoil_no_others() {
        let good = key(KeyKind::Es256);
        let mut for_encryption = serde_json::to_value(key(KeyKind::Es256).jwk()).unwrap();
        for_encryption["use"] = json!("enc");
        let mut of_another_algorithm =
            serde_json::to_value(key(KeyKind::Rs256 { bits: 2048 }).jwk()).unwrap();
        of_another_algorithm["alg"] = json!("RS512");
        let set = json!({"keys": [
            {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
            {"kty": "surprise"},
            7,
            for_encryption,
            of_another_algorithm,
            serde_json::to_value(good.jwk()).unwrap(),
        ]});
        let keys = KeySet::read(set.to_string().as_bytes()).unwrap();
        assert_eq!(keys.0.len(), 1);
        assert!(KeySet::read(b"{}").is_none() && KeySet::read(b"[]").is_none());
    }

    #[test]
    fn an_app_may_bind_its_token_and_never_uses_a_browsers() {
        let hashed = hex(&sha256(b"n"));
        let hash = Some(hashed.as_str());
        for (told, sent, takes_unsent, takes_clear, is_good) in [
            (None, None, false, false, true),
            (Some("n"), None, false, true, false),
            (Some("n"), None, true, false, true),
            (Some("n"), Some("n"), false, true, true),
            (hash, Some("n"), false, false, true),
            (hash, Some("n"), false, true, true),
            (None, Some("n"), true, true, false),
            (Some("m"), Some("n"), true, true, false),
            // Whoever has the token reads what it says, and can send that.
            (Some("n"), Some("n"), true, false, false),
            (hash, hash, true, false, false),
            // Of a browser.
            (Some("mon_x"), None, true, true, false),
            (Some("mon_x"), Some("mon_x"), true, true, false),
        ] {
            let rule = NonceRule::OfApp { sent, takes_unsent, takes_clear };
            assert_eq!(has_nonce(told, rule), is_good, "{told:?} {sent:?} {takes_unsent} {takes_clear}");
        }
    }

    #[test]
    fn a_tenant_is_that_of_the_token_and_nothing_else_fits_its_place() {
        let rule = IssuerRule::of("https://login.example/{tenantid}/v2.0");
        let tenant = "9188040d-6c67-4c5b-b112-36a304b66dad";
        let claims = |iss: &str, tid: &str| -> Claims {
            serde_json::from_value(
                json!({"iss": iss, "tid": tid, "sub": "1", "aud": "us", "exp": 1, "iat": 1}),
            )
            .unwrap()
        };
        let own = format!("https://login.example/{tenant}/v2.0");
        assert!(rule.names(&claims(&own, tenant)) && rule.may_name(&own));
        for (iss, tid) in [
            (own.as_str(), "00000000-0000-0000-0000-000000000000"),
            ("https://login.example/x/v2.0", "x"),
            ("https://login.example//v2.0", ""),
            ("https://evil.example/v2.0", tenant),
            ("https://login.example/{tenantid}/v2.0", "{tenantid}"),
        ] {
            assert!(!rule.names(&claims(iss, tid)), "{iss} {tid}");
        }
        assert!(!rule.may_name("https://login.example/x/v2.0"));
    }
}
