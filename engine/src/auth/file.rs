//! The text of `auth.file`. Unknown keys fail, so that a typing error never opens a door.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytestring::ByteString;
use postroad_base::{ClientId, is_level_name, is_user_name};
use postroad_broker::DeliveryMode;
use serde::Deserialize;

use super::password::{StoredPassword, StoredToken};
use super::{Anonymous, Auth, AuthError, Registration, User, merged};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntries {
    #[serde(default)]
    user: Vec<UserEntry>,
    #[serde(default)]
    client: Vec<ClientEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    name: String,
    password: Option<String>,
    #[serde(default)]
    tokens: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    delivery: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientEntry {
    id: String,
    user: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    delivery: Option<String>,
}

pub(super) fn parse(text: &str, anonymous: Anonymous) -> Result<Auth, AuthError> {
    let entries: FileEntries = toml::from_str(text).map_err(|error| AuthError::Syntax(error.to_string()))?;
    let mut users = HashMap::new();
    for entry in entries.user {
        insert_user(&mut users, entry)?;
    }
    let mut registrations = HashMap::new();
    for entry in entries.client {
        insert_client(&mut registrations, &users, entry)?;
    }
    Ok(Auth { users, registrations, anonymous, open: false })
}

fn insert_user(users: &mut HashMap<ByteString, User>, entry: UserEntry) -> Result<(), AuthError> {
    let problem = |problem: &str| AuthError::Entry { entry: format!("user {:?}", entry.name), problem: problem.into() };
    if !is_user_name(&entry.name) {
        return Err(problem(NO_NAME));
    }
    let password = entry.password.as_deref().map(StoredPassword::parse).transpose().map_err(&problem)?;
    let tokens: Result<Vec<_>, _> = entry.tokens.iter().map(|text| StoredToken::parse(text)).collect();
    let tokens = tokens.map_err(&problem)?;
    let groups = groups(&entry.groups).map_err(&problem)?;
    let delivery = delivery(entry.delivery.as_deref()).map_err(&problem)?;
    let name = ByteString::from(entry.name.as_str());
    match users.entry(name.clone()) {
        Entry::Occupied(_) => Err(problem("is there twice; give each user one entry")),
        Entry::Vacant(vacant) => {
            vacant.insert(User { name, password, tokens, groups, delivery });
            Ok(())
        }
    }
}

fn insert_client(
    registrations: &mut HashMap<ByteString, Registration>,
    users: &HashMap<ByteString, User>,
    entry: ClientEntry,
) -> Result<(), AuthError> {
    let problem = |problem: &str| AuthError::Entry { entry: format!("client {:?}", entry.id), problem: problem.into() };
    if !is_level_name(&entry.id) {
        return Err(problem(NO_LEVEL));
    }
    let user = entry.user.as_deref().map(ByteString::from);
    let own = groups(&entry.groups).map_err(&problem)?;
    let groups = match &user {
        None => own,
        Some(name) => match users.get(name) {
            None => return Err(problem("its user is not in this file")),
            Some(user) => merged(&user.groups, &own),
        },
    };
    let delivery = delivery(entry.delivery.as_deref()).map_err(&problem)?;
    let id = ByteString::from(entry.id.as_str());
    let registration = Registration { client: ClientId(id.clone()), user, groups, delivery };
    if registrations.insert(id, registration).is_some() {
        return Err(problem("is there twice; give each client one entry"));
    }
    Ok(())
}

const NO_LEVEL: &str = "the name must be 1 to 1,024 bytes without '/', '+', '#' and control characters";

const NO_NAME: &str = "names of users and groups must be 1 to 1,024 bytes without '/', '+', '#' and control characters, and not begin with '$'";

fn delivery(word: Option<&str>) -> Result<Option<DeliveryMode>, &'static str> {
    word.map(|word| DeliveryMode::from_name(word).ok_or("delivery must be \"push\" or \"pull\"")).transpose()
}

fn groups(names: &[String]) -> Result<Arc<[ByteString]>, &'static str> {
    if !names.iter().all(|name| is_user_name(name)) {
        return Err(NO_NAME);
    }
    let mut groups: Vec<ByteString> = names.iter().map(|name| ByteString::from(name.as_str())).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(groups.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, Anonymous::Deny).expect_err("must be refused").to_string()
    }

    #[test]
    fn an_empty_file_knows_nobody() {
        let auth = parse("", Anonymous::Deny).expect("valid");
        assert_eq!((auth.users.len(), auth.registrations.len()), (0, 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("[[user]]\nname = 'a'\npasword = 'x'", "pasword"),
            ("[[user]]\nname = 'a'\npassword = 'plain'", "postroad passwd"),
            (
                "[[user]]\nname = 'a'\npassword = '$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'",
                "argon2id",
            ),
            ("[[user]]\nname = 'a'\ntokens = ['sha256:12']", "64 hexadecimal"),
            ("[[user]]\nname = 'a/b'", "user \"a/b\""),
            ("[[user]]\nname = 'a'\n[[user]]\nname = 'a'", "twice"),
            ("[[user]]\nname = 'a'\ngroups = ['+']", "group"),
            ("[[client]]\nid = 'c'\nuser = 'ghost'", "its user is not in this file"),
            ("[[client]]\nid = 'c'\n[[client]]\nid = 'c'", "twice"),
            ("[[client]]\nid = ''", "client \"\""),
            ("[[user]]\nname = 'a'\ndelivery = 'fetch'", "push"),
            ("[[client]]\nid = 'c'\ndelivery = 'Pull'", "client \"c\": delivery must be"),
            ("nonsense", "auth.file"),
        ] {
            let message = error(text);
            assert!(message.contains(words), "{text:?} gave {message:?} without {words:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text in "\\PC{0,200}") {
            let _answer = parse(&text, Anonymous::Deny);
        }

        #[test]
        fn any_name_is_found_again_or_refused(name in "\\PC{0,20}") {
            let mut entry = toml::Table::new();
            entry.insert("name".into(), name.clone().into());
            let mut file = toml::Table::new();
            file.insert("user".into(), vec![toml::Value::Table(entry)].into());
            match parse(&file.to_string(), Anonymous::Deny) {
                Ok(auth) => assert!(auth.users.contains_key(name.as_str())),
                Err(_) => assert!(!is_user_name(&name)),
            }
        }
    }
}
