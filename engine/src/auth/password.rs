//! Secrets as they are stored: passwords as argon2id, device tokens as SHA-256.
//!
//! A password is guessable, so its hash must be slow. A token is 128 bits of our own randomness, so nobody
//! guesses it, and a fast hash does: a fleet may reconnect at once.

use argon2::Argon2;
use argon2::password_hash::rand_core::{OsRng, RngCore};
use argon2::password_hash::{PasswordHash, PasswordHashString, PasswordHasher, PasswordVerifier, SaltString};
use sha2::{Digest, Sha256};

/// What every device token begins with; 32 hexadecimal digits follow.
pub const TOKEN_PREFIX: &str = "prt_";
/// What a stored token begins with; 64 hexadecimal digits follow.
const STORED_PREFIX: &str = "sha256:";
const TOKEN_BYTES: usize = 16;
/// Memory of one hash at most, in KiB: a hash from elsewhere must not take the machine's memory.
const MEMORY_KIB_MAX: u32 = 1 << 20;

/// A device token, just made. Its secret is shown once and stored nowhere.
pub struct Token {
    secret: String,
}

impl Token {
    /// Draws 128 bits from the operating system.
    pub fn generate() -> Self {
        let mut bytes = [0; TOKEN_BYTES];
        OsRng.fill_bytes(&mut bytes);
        Self { secret: format!("{TOKEN_PREFIX}{}", hex(&bytes)) }
    }

    /// What the device shows as its password.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What `auth.file` holds of it.
    pub fn stored(&self) -> String {
        format!("{STORED_PREFIX}{}", hex(&StoredToken::of(self.secret.as_bytes()).0))
    }
}

/// Whether a password has the form of a device token. No other password may have it.
pub fn is_token(password: &[u8]) -> bool {
    let digits = password.strip_prefix(TOKEN_PREFIX.as_bytes());
    digits.is_some_and(|digits| digits.len() == 2 * TOKEN_BYTES && digits.iter().all(|b| b.is_ascii_hexdigit()))
}

/// The text for `password` in `auth.file`.
///
/// # Panics
/// If the operating system gives no randomness, or no 19 MiB of memory.
pub fn hash_password(password: &[u8]) -> String {
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::default().hash_password(password, &salt).expect("default parameters are valid");
    hash.to_string()
}

#[derive(Clone, Debug)]
pub(super) struct StoredPassword(PasswordHashString);

impl StoredPassword {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let hash = PasswordHash::new(text).map_err(|_| "password is no hash; make one with: postroad passwd")?;
        if hash.algorithm.as_str() != "argon2id" {
            return Err("the password's hash is not argon2id; make one with: postroad passwd");
        }
        let parameters = argon2::Params::try_from(&hash).map_err(|_| "the password's hash has bad parameters")?;
        if parameters.m_cost() > MEMORY_KIB_MAX {
            return Err("the password's hash asks for more than 1 GiB of memory");
        }
        if hash.hash.is_none() || hash.salt.is_none() {
            return Err("the password's hash is cut short; make one with: postroad passwd");
        }
        Ok(Self(hash.serialize()))
    }

    /// A hash of default cost that no password is looked for behind: its value is that of no output at all.
    pub(super) fn decoy() -> Self {
        const DECOY: &str =
            "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        Self::parse(DECOY).expect("a constant; a test parses it")
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &self.0.password_hash()).is_ok()
    }
}

#[derive(Clone, Debug)]
pub(super) struct StoredToken([u8; 32]);

impl StoredToken {
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "a token must be stored as sha256: and 64 hexadecimal digits; make one with: \
                            postroad passwd --token";
        let digits = text.strip_prefix(STORED_PREFIX).ok_or(FORM)?.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(FORM);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0]).zip(nibble(pair[1])).map(|(high, low)| high << 4 | low).ok_or(FORM)?;
        }
        Ok(Self(bytes))
    }

    /// Compares all bytes, whatever the first ones say.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|n| char::from_digit(n.into(), 16)).collect()
}

/// A hash that costs a test nothing.
#[cfg(test)]
pub(super) fn cheap_hash(password: &str) -> String {
    let parameters = argon2::Params::new(8, 1, 1, None).expect("valid");
    let hasher = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
    hasher.hash_password(password.as_bytes(), &SaltString::generate(&mut OsRng)).expect("valid").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_matches_its_password_alone_and_is_salted() {
        let (one, other) = (cheap_hash("secret"), cheap_hash("secret"));
        assert_ne!(one, other);
        let stored = StoredPassword::parse(&one).expect("valid");
        assert!(stored.matches(b"secret") && !stored.matches(b"secret ") && !stored.matches(b""));
    }

    #[test]
    fn what_passwd_writes_is_argon2id_of_the_decoy_s_cost() {
        let made = hash_password(b"secret");
        let cost = |text: &str| argon2::Params::try_from(&PasswordHash::new(text).expect("valid")).expect("valid");
        assert_eq!(cost(&made), cost(StoredPassword::decoy().0.as_str()));
        assert!(made.starts_with("$argon2id$"), "{made}");
        assert!(StoredPassword::parse(&made).is_ok());
    }

    #[test]
    fn the_decoy_matches_nothing_likely() {
        assert!(!StoredPassword::decoy().matches(b"") && !StoredPassword::decoy().matches(b"secret"));
    }

    #[test]
    fn tokens_differ_and_are_recognized_and_stored_as_digests() {
        let (one, other) = (Token::generate(), Token::generate());
        assert_ne!(one.secret(), other.secret());
        assert!(is_token(one.secret().as_bytes()));
        assert!(!one.stored().contains(&one.secret()[TOKEN_PREFIX.len()..]));
        let stored = StoredToken::parse(&one.stored()).expect("valid");
        assert!(stored.same(&StoredToken::of(one.secret().as_bytes())));
        assert!(!stored.same(&StoredToken::of(other.secret().as_bytes())));
    }

    #[test]
    fn the_form_of_a_token_is_exact() {
        let digits = "0123456789abcdef0123456789abcdef";
        assert!(is_token(format!("prt_{digits}").as_bytes()));
        for bad in [digits.to_owned(), format!("prt_{digits}0"), format!("prt_{}g", &digits[1..]), "prt_".into()] {
            assert!(!is_token(bad.as_bytes()), "{bad}");
        }
    }
}
