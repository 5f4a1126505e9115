//! Who may connect: the users, device tokens, groups and registrations of `auth.file`.
//!
//! ```text
//! [[user]]                          [[client]]
//! name = "alice"                    id = "truck-7"
//! password = "$argon2id$v=19$…"     user = "alice"
//! tokens = ["sha256:…"]             groups = ["trucks"]
//! groups = ["drivers"]              delivery = "pull"
//! ```
//!
//! - [`Auth::begin`] decides at once what costs nothing: a token (128 random bits need no slow hash), a
//!   client without credentials, a malformed request. A password costs some 29 ms and 19 MiB: it becomes a
//!   [`PasswordCheck`], which [`Pool`] runs off the shards.
//! - The *form of what was sent* decides which path is taken, never the user: an unknown user's password is
//!   checked against a decoy of the same cost, so that time tells nobody which users exist.
//! - An [`Auth`] never changes; a reload makes a new one, whole or not at all.

mod file;
mod password;
mod pool;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytestring::ByteString;
use postroad_base::{ClientId, ReasonCode};
use postroad_broker::DeliveryMode;
use postroad_broker::api::Principal;

pub use password::{TOKEN_PREFIX, Token, hash_password, is_token};
pub use pool::{CheckOutcome, Pool, PoolOptions};

use password::{StoredPassword, StoredToken};

/// Why `auth.file` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It could not be read.
    #[error("can't read auth.file {}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no TOML, or holds unknown keys.
    #[error("auth.file: {0}")]
    Syntax(String),
    /// An entry says something that can't be.
    #[error("auth.file: {entry}: {problem}")]
    Entry {
        /// Which entry, for instance `user "alice"`.
        entry: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// What to do with a client that shows no credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Let it in, as nobody.
    Allow,
    /// Refuse it.
    #[default]
    Deny,
}

/// What a client shows in its CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// User name.
    pub user: Option<&'a str>,
    /// Password or device token.
    pub password: Option<&'a [u8]>,
    /// Client identifier, as sent or as given by the server.
    pub client: &'a str,
}

/// What [`Auth::begin`] found.
#[derive(Debug)]
pub enum Verdict {
    /// Decided.
    Known(Result<Principal, ReasonCode>),
    /// A password must be hashed first: give it to a [`Pool`], or call [`PasswordCheck::run`].
    Hash(Box<PasswordCheck>),
}

/// A client that can be addressed while it is away, before it ever connected (DESIGN 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Whose it is.
    pub client: ClientId,
    /// The only user that may connect as this client, if one is named.
    pub user: Option<ByteString>,
    /// Its groups: its own and its user's.
    pub groups: Arc<[ByteString]>,
    /// Whether it is pushed what comes, or pulls it, if that is said of it.
    pub delivery: Option<DeliveryMode>,
}

/// All that is known about users and clients. Immutable; share it by `Arc`.
#[derive(Debug)]
pub struct Auth {
    users: HashMap<ByteString, User>,
    registrations: HashMap<ByteString, Registration>,
    anonymous: Anonymous,
    /// No file is configured: names prove nothing and are not asked for.
    open: bool,
}

#[derive(Debug)]
struct User {
    name: ByteString,
    password: Option<StoredPassword>,
    tokens: Vec<StoredToken>,
    groups: Arc<[ByteString]>,
    delivery: Option<DeliveryMode>,
}

/// One password to hash, and what follows from the result.
#[derive(Debug)]
pub struct PasswordCheck {
    /// `None` for a user that is unknown or has no password: the decoy is hashed, the answer is no.
    stored: Option<StoredPassword>,
    password: Vec<u8>,
    answer: Result<Principal, ReasonCode>,
}

impl PasswordCheck {
    /// Hashes (some 29 ms) and decides. The cost is the same whether the user exists or not.
    ///
    /// # Errors
    /// The reason code for CONNACK.
    pub fn run(self) -> Result<Principal, ReasonCode> {
        let matches = self.stored.unwrap_or_else(StoredPassword::decoy).matches(&self.password);
        if matches { self.answer } else { Err(ReasonCode::BadUserNameOrPassword) }
    }
}

impl Auth {
    /// Without a file: nobody is known; whoever comes is let in (or not) as nobody, whatever name it shows.
    pub fn without_file(anonymous: Anonymous) -> Self {
        Self { users: HashMap::new(), registrations: HashMap::new(), anonymous, open: true }
    }

    /// Reads `path`; without one as [`Auth::without_file`].
    ///
    /// # Errors
    /// When the file can't be read or used; the caller keeps what it had.
    pub fn load(path: Option<&Path>, anonymous: Anonymous) -> Result<Self, AuthError> {
        let Some(path) = path else {
            return Ok(Self::without_file(anonymous));
        };
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|error| AuthError::Read { path: path.to_owned(), error })?;
        Self::parse(&text, anonymous)
    }

    /// Understands the text of an `auth.file`.
    ///
    /// # Errors
    /// When it can't be used, naming the entry.
    pub fn parse(text: &str, anonymous: Anonymous) -> Result<Self, AuthError> {
        file::parse(text, anonymous)
    }

    /// Clients to register, whether they ever connected or not. `None` without a file: then nothing is said of them.
    pub fn registrations(&self) -> Option<impl Iterator<Item = &Registration>> {
        (!self.open).then(|| self.registrations.values())
    }

    /// Whether a client that proved to be this user is to be pushed what comes, or pulls it, if the file says so: its own entry
    /// before its user's.
    pub fn delivery_of(&self, client: &str, user: Option<&str>) -> Option<DeliveryMode> {
        let own = self.registrations.get(client).and_then(|registration| registration.delivery);
        own.or_else(|| self.users.get(user?)?.delivery)
    }

    /// Decides what can be decided at once.
    pub fn begin(&self, credentials: &Credentials<'_>) -> Verdict {
        let anonymous = credentials.user.is_none() && credentials.password.is_none();
        if self.open || anonymous {
            return Verdict::Known(self.nobody(credentials.client));
        }
        let (Some(name), Some(password)) = (credentials.user, credentials.password) else {
            return Verdict::Known(Err(ReasonCode::BadUserNameOrPassword));
        };
        let user = self.users.get(name);
        if is_token(password) {
            return Verdict::Known(self.check_token(user, password, credentials.client));
        }
        let refused = Err(ReasonCode::BadUserNameOrPassword);
        Verdict::Hash(Box::new(PasswordCheck {
            stored: user.and_then(|user| user.password.clone()),
            password: password.to_vec(),
            answer: user.map_or(refused, |user| self.admit(user, credentials.client)),
        }))
    }

    /// [`Auth::begin`] and, where it takes a hash, [`PasswordCheck::run`]: blocks for some 29 ms.
    ///
    /// # Errors
    /// The reason code for CONNACK.
    pub fn check(&self, credentials: &Credentials<'_>) -> Result<Principal, ReasonCode> {
        match self.begin(credentials) {
            Verdict::Known(answer) => answer,
            Verdict::Hash(check) => check.run(),
        }
    }

    fn nobody(&self, client: &str) -> Result<Principal, ReasonCode> {
        let registration = self.registrations.get(client);
        let owned = registration.is_some_and(|registration| registration.user.is_some());
        if self.anonymous == Anonymous::Deny || owned {
            return Err(ReasonCode::NotAuthorized);
        }
        Ok(Principal { user: None, groups: registration.map_or_else(Arc::default, |r| Arc::clone(&r.groups)) })
    }

    /// Looks at every token, and hashes for unknown users too: the time depends on nothing but the number of tokens.
    fn check_token(&self, user: Option<&User>, token: &[u8], client: &str) -> Result<Principal, ReasonCode> {
        let shown = StoredToken::of(token);
        let known = user.filter(|user| user.tokens.iter().fold(false, |found, stored| found | stored.same(&shown)));
        known.map_or(Err(ReasonCode::BadUserNameOrPassword), |user| self.admit(user, client))
    }

    /// What a user that proved itself may be: a registered client belongs to its user alone.
    fn admit(&self, user: &User, client: &str) -> Result<Principal, ReasonCode> {
        let registration = self.registrations.get(client);
        let owner = registration.and_then(|registration| registration.user.as_ref());
        if owner.is_some_and(|owner| *owner != user.name) {
            return Err(ReasonCode::NotAuthorized);
        }
        let groups = registration.map_or(&user.groups, |registration| &registration.groups);
        let groups = if owner.is_some() { Arc::clone(groups) } else { merged(&user.groups, groups) };
        Ok(Principal { user: Some(user.name.clone()), groups })
    }
}

/// Both lists, sorted, each group once.
fn merged(one: &Arc<[ByteString]>, other: &Arc<[ByteString]>) -> Arc<[ByteString]> {
    if Arc::ptr_eq(one, other) {
        return Arc::clone(one);
    }
    let mut groups: Vec<ByteString> = one.iter().chain(other.iter()).cloned().collect();
    groups.sort_unstable();
    groups.dedup();
    groups.into()
}

#[cfg(test)]
mod tests {
    use super::password::cheap_hash;
    use super::*;

    fn auth(anonymous: Anonymous) -> (Auth, Token) {
        let token = Token::generate();
        let hash = cheap_hash("secret");
        let text = format!(
            "[[user]]\nname = \"alice\"\npassword = \"{hash}\"\ngroups = [\"ops\", \"all\"]\n\
             [[user]]\nname = \"box\"\ntokens = [\"{}\"]\n\
             [[client]]\nid = \"truck-7\"\nuser = \"alice\"\ngroups = [\"trucks\"]\n\
             [[client]]\nid = \"kiosk\"\ngroups = [\"kiosks\"]\n",
            token.stored()
        );
        (Auth::parse(&text, anonymous).expect("valid"), token)
    }

    fn show<'a>(user: &'a str, password: &'a str, client: &'a str) -> Credentials<'a> {
        Credentials { user: Some(user), password: Some(password.as_bytes()), client }
    }

    fn groups(principal: &Principal) -> Vec<&str> {
        principal.groups.iter().map(|group| &**group).collect()
    }

    const BAD: Result<Principal, ReasonCode> = Err(ReasonCode::BadUserNameOrPassword);

    #[test]
    fn a_password_admits_its_user_with_its_groups() {
        let (auth, _) = auth(Anonymous::Deny);
        let alice = auth.check(&show("alice", "secret", "c1")).expect("right password");
        assert_eq!((alice.user.as_deref(), groups(&alice)), (Some("alice"), vec!["all", "ops"]));
        assert_eq!(auth.check(&show("alice", "Secret", "c1")), BAD);
        assert_eq!(auth.check(&show("mallory", "secret", "c1")), BAD);
        assert_eq!(auth.check(&show("box", "secret", "c1")), BAD);
        assert_eq!(auth.check(&show("alice", "", "c1")), BAD);
    }

    #[test]
    fn a_token_is_checked_in_place_and_only_for_its_user() {
        let (auth, token) = auth(Anonymous::Deny);
        let verdict = auth.begin(&show("box", token.secret(), "c1"));
        assert!(matches!(verdict, Verdict::Known(Ok(_))), "{verdict:?}");
        assert_eq!(auth.check(&show("alice", token.secret(), "c1")), BAD);
        assert_eq!(auth.check(&show("nobody", token.secret(), "c1")), BAD);
        assert_eq!(auth.check(&show("box", Token::generate().secret(), "c1")), BAD);
    }

    #[test]
    fn the_form_of_the_secret_decides_the_path_and_not_the_user() {
        let (auth, _) = auth(Anonymous::Deny);
        let other = Token::generate();
        for user in ["alice", "box", "nobody"] {
            assert!(matches!(auth.begin(&show(user, "guess", "c")), Verdict::Hash(_)), "{user}");
            assert!(matches!(auth.begin(&show(user, other.secret(), "c")), Verdict::Known(Err(_))), "{user}");
        }
    }

    #[test]
    fn a_registered_client_belongs_to_its_user() {
        let (auth, token) = auth(Anonymous::Allow);
        let alice = auth.check(&show("alice", "secret", "truck-7")).expect("its user");
        assert_eq!(groups(&alice), ["all", "ops", "trucks"]);
        assert_eq!(auth.check(&show("box", token.secret(), "truck-7")), Err(ReasonCode::NotAuthorized));
        let nobody = Credentials { user: None, password: None, client: "truck-7" };
        assert_eq!(auth.check(&nobody), Err(ReasonCode::NotAuthorized));
        let kiosk = Credentials { client: "kiosk", ..nobody };
        assert_eq!(groups(&auth.check(&kiosk).expect("anybody may be the kiosk")), ["kiosks"]);
        let alice = auth.check(&show("alice", "secret", "kiosk")).expect("anybody may be the kiosk");
        assert_eq!(groups(&alice), ["all", "kiosks", "ops"]);
        let mut registered: Vec<_> = auth.registrations().into_iter().flatten().map(|r| r.client.as_str()).collect();
        registered.sort_unstable();
        assert_eq!(registered, ["kiosk", "truck-7"]);
    }

    #[test]
    fn who_shows_nothing_is_nobody_or_refused() {
        let nobody = Credentials { user: None, password: None, client: "c" };
        let (strict, _) = auth(Anonymous::Deny);
        assert_eq!(strict.check(&nobody), Err(ReasonCode::NotAuthorized));
        let (lax, _) = auth(Anonymous::Allow);
        assert_eq!(lax.check(&nobody), Ok(Principal::default()));
        assert_eq!(lax.check(&Credentials { user: Some("alice"), ..nobody }), BAD, "half a proof is none");
        assert_eq!(lax.check(&Credentials { password: Some(b"secret"), ..nobody }), BAD);
    }

    #[test]
    fn without_a_file_a_name_proves_nothing() {
        let open = Auth::without_file(Anonymous::Allow);
        assert_eq!(open.check(&show("alice", "x", "c")), Ok(Principal::default()));
        let closed = Auth::without_file(Anonymous::Deny);
        assert_eq!(closed.check(&show("alice", "x", "c")), Err(ReasonCode::NotAuthorized));
    }

    #[test]
    fn a_client_says_before_its_user_whether_it_pulls() {
        let text = "[[user]]\nname = 'a'\ndelivery = 'pull'\n[[user]]\nname = 'b'\n\
            [[client]]\nid = 'own'\ndelivery = 'push'\n[[client]]\nid = 'kiosk'\ndelivery = 'pull'\n";
        let auth = Auth::parse(text, Anonymous::Deny).expect("valid");
        assert_eq!(auth.delivery_of("c", Some("a")), Some(DeliveryMode::Pull));
        assert_eq!(auth.delivery_of("own", Some("a")), Some(DeliveryMode::Push));
        assert_eq!(auth.delivery_of("kiosk", Some("b")), Some(DeliveryMode::Pull));
        assert_eq!(auth.delivery_of("kiosk", None), Some(DeliveryMode::Pull));
        assert_eq!(auth.delivery_of("c", Some("b")), None);
        assert_eq!(auth.delivery_of("c", None), None);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Auth::load(Some(Path::new("/nowhere/auth.toml")), Anonymous::Deny).expect_err("no such file");
        assert!(error.to_string().contains("/nowhere/auth.toml"), "{error}");
    }
}
