//! Who may call the API: the tokens of `api.tokens_file`.
//!
//! ```text
//! [[token]]
//! name = "billing"
//! hash = "sha256:…"
//! groups = ["back-end"]
//! rights = ["publish", "clients"]
//! ```
//!
//! A token is 128 bits of the server's own randomness, so its plain SHA-256 is stored. To the access rules its holder is the
//! user of that name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use postroad_base::is_user_name;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::publication::Caller;

/// What a stored token begins with; 64 hexadecimal digits follow.
const STORED_PREFIX: &str = "sha256:";

/// Why `api.tokens_file` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It could not be read.
    #[error("can't read api.tokens_file {}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no TOML, or holds unknown keys.
    #[error("api.tokens_file: {0}")]
    Syntax(String),
    /// An entry says something that can't be.
    #[error("api.tokens_file: token {name:?}: {problem}")]
    Entry {
        /// Which.
        name: String,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To publish, as far as the access rules allow. What a token is good for if nothing else is said.
    Publish,
    /// To see all clients, and to end their connections.
    Clients,
    /// To see all dead letters, and to say what becomes of them.
    DeadLetters,
    /// To see what becomes of all messages, and what happens to all clients.
    Trace,
    /// To have the configuration read anew, and to stop the server.
    Admin,
    /// To make and delete consumer groups, and to take from them, as far as the access rules allow to subscribe.
    Consume,
}

impl Right {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Publish, Self::Clients, Self::DeadLetters, Self::Trace, Self::Admin, Self::Consume];

    /// Its word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Clients => "clients",
            Self::DeadLetters => "dead_letters",
            Self::Trace => "trace",
            Self::Admin => "admin",
            Self::Consume => "consume",
        }
    }
}

/// Who has a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// As whom it calls.
    pub caller: Caller,
    /// What it may.
    pub rights: Vec<Right>,
}

/// All tokens. Immutable: a reload makes new ones, whole or not at all.
#[derive(Debug)]
pub struct Tokens(HashMap<[u8; 32], Holder>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    hash: String,
    #[serde(default)]
    groups: Vec<String>,
    rights: Option<Vec<String>>,
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be read or used; the caller keeps what it had.
    pub fn load(path: &Path) -> Result<Self, TokensError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|error| TokensError::Read { path: path.to_owned(), error })?;
        Self::parse(&text)
    }

    /// Understands the text of such a file. A name may stand there several times, with a token each: to change one without a
    /// gap.
    ///
    /// # Errors
    /// When it can't be used, naming the entry.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let file: File = toml::from_str(text).map_err(|error| TokensError::Syntax(error.to_string()))?;
        let mut tokens = HashMap::new();
        for entry in file.token {
            let problem = |problem| TokensError::Entry { name: entry.name.clone(), problem };
            if !entry.groups.iter().chain([&entry.name]).all(|name| is_user_name(name)) {
                return Err(problem(NO_NAME));
            }
            let hash = digest_of(&entry.hash).ok_or_else(|| {
                problem("hash must be sha256: and 64 hexadecimal digits; make one with: postroad token")
            })?;
            let rights = rights(entry.rights.as_deref()).ok_or_else(|| problem(RIGHTS))?;
            let holder = Holder { caller: Caller::new(&entry.name, &entry.groups), rights };
            if tokens.insert(hash, holder).is_some() {
                return Err(problem("its hash is there twice; give each name a token of its own"));
            }
        }
        Ok(Self(tokens))
    }

    /// Who shows this secret. Looked up by its hash: how long that takes tells nothing of the secrets that are known.
    pub fn holder(&self, secret: &str) -> Option<&Holder> {
        self.0.get(&<[u8; 32]>::from(Sha256::digest(secret)))
    }
}

/// `None` for a word that is no right.
fn rights(words: Option<&[String]>) -> Option<Vec<Right>> {
    let right = |word: &String| Right::ALL.into_iter().find(|right| right.name() == word);
    words.map_or(Some(vec![Right::Publish]), |words| words.iter().map(right).collect())
}

const RIGHTS: &str = "rights are publish, clients, dead_letters, trace, admin and consume";
const NO_NAME: &str =
    "a name must be 1 to 1,024 bytes without '/', '+', '#' and control characters, and not begin with '$'";

fn digest_of(stored: &str) -> Option<[u8; 32]> {
    let digits = stored.strip_prefix(STORED_PREFIX).filter(|digits| digits.len() == 64 && digits.is_ascii())?;
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).expect("it is ASCII");
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| !pair.starts_with('+'))?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_token_is_known_by_its_secret() {
        let text = format!("[[token]]\nname = \"billing\"\nhash = \"{ABC}\"\ngroups = [\"z\", \"a\", \"z\"]\n");
        let tokens = Tokens::parse(&text).expect("a good file");
        let Holder { caller, rights } = tokens.holder("abc").expect("it is known");
        let groups: Vec<&str> = caller.groups.iter().map(|group| &**group).collect();
        assert_eq!((&*caller.name, &groups[..]), ("billing", &["$api", "a", "z"][..]));
        assert_eq!(rights[..], [Right::Publish]);
        assert!(tokens.holder("abd").is_none() && tokens.holder("").is_none() && tokens.holder(ABC).is_none());
        let both = Tokens::parse(&(text + "rights = [\"clients\", \"publish\"]\n")).expect("a good file");
        assert_eq!(both.holder("abc").expect("it is known").rights[..], [Right::Clients, Right::Publish]);
    }

    #[test]
    fn what_can_t_be_is_refused_by_name() {
        let entry = |name: &str, hash: &str| format!("[[token]]\nname = \"{name}\"\nhash = \"{hash}\"\n");
        let short = &ABC[..ABC.len() - 1];
        let signs = ABC.replace("ba", "+a");
        let cases = [
            (entry("$local", ABC), "begin with '$'"),
            (entry("a/b", ABC), "a name must be"),
            (entry("a", short), "hash must be sha256:"),
            (entry("a", &signs), "hash must be sha256:"),
            (entry("a", "plain"), "hash must be sha256:"),
            (entry("a", ABC) + &entry("b", ABC), "token \"b\": its hash is there twice"),
            (
                entry("a", ABC) + "rights = [\"all\"]\n",
                "rights are publish, clients, dead_letters, trace, admin and consume",
            ),
            (entry("a", ABC) + "group = [\"x\"]\n", "unknown field `group`"),
            (entry("a", ABC) + "groups = [\"$api\"]\n", "a name must be"),
        ];
        for (text, expected) in cases {
            let error = Tokens::parse(&text).expect_err("it can't be used").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
