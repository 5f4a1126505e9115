//! `postroad passwd`: changes one entry of an `auth.file` and leaves the rest, comments too, as it is.
//!
//! The new text is checked as the server would, written beside the file and renamed over it: a reader sees
//! the old file or the new one.

use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, Result, bail};
use postroad_engine::auth::{Anonymous, Auth, Token, hash_password, is_token};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use crate::cli::PasswdArgs;

/// Runs the command.
pub fn passwd(args: &PasswdArgs) -> Result<()> {
    let old = args.file.as_deref().map_or(Ok(String::new()), read)?;
    let mut document: DocumentMut = old.parse().context("the auth.file is no TOML")?;
    if args.delete {
        delete(&mut document, &args.name)?;
    } else {
        change(&mut document, args)?;
    }
    let new = document.to_string();
    Auth::parse(&new, Anonymous::Deny).context("nothing is changed")?;
    match &args.file {
        Some(path) => write(path, &new),
        None => {
            print!("{new}");
            Ok(())
        }
    }
}

fn change(document: &mut DocumentMut, args: &PasswdArgs) -> Result<()> {
    let user = entry(document, &args.name)?;
    for group in &args.group {
        add(user, "groups", group)?;
    }
    if args.token {
        let token = Token::generate();
        add(user, "tokens", &token.stored())?;
        // The secret is on standard output alone, so that a script can take it; it is shown this once.
        let secret = token.secret();
        if args.file.is_some() { println!("{secret}") } else { eprintln!("{secret}") }
    } else {
        user["password"] = value(hash_password(password()?.as_bytes()));
    }
    Ok(())
}

fn users(document: &mut DocumentMut) -> Result<&mut ArrayOfTables> {
    let item = document.entry("user").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().context("user must be written as [[user]] tables")
}

fn position(users: &ArrayOfTables, name: &str) -> Option<usize> {
    users.iter().position(|user| user.get("name").and_then(Item::as_str) == Some(name))
}

/// The user's table, made if it is missing.
fn entry<'a>(document: &'a mut DocumentMut, name: &str) -> Result<&'a mut Table> {
    let users = users(document)?;
    let index = position(users, name).unwrap_or_else(|| {
        let mut user = Table::new();
        user["name"] = value(name);
        users.push(user);
        users.len() - 1
    });
    Ok(users.get_mut(index).expect("found or pushed"))
}

fn delete(document: &mut DocumentMut, name: &str) -> Result<()> {
    let users = users(document)?;
    let Some(index) = position(users, name) else { bail!("there is no user {name:?}") };
    users.remove(index);
    Ok(())
}

/// Adds a text to a list, once.
fn add(user: &mut Table, key: &str, text: &str) -> Result<()> {
    let item = user.entry(key).or_insert_with(|| value(Array::new()));
    let list = item.as_array_mut().with_context(|| format!("{key} must be a list"))?;
    if !list.iter().any(|there| there.as_str() == Some(text)) {
        list.push(text);
    }
    Ok(())
}

/// Asked twice at a terminal, else the first line of standard input.
fn password() -> Result<String> {
    let password = if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ")?;
        if rpassword::prompt_password("Again: ")? != first {
            bail!("the two passwords differ");
        }
        first
    } else {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).context("can't read the password from standard input")?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    if password.is_empty() {
        bail!("the password is empty");
    }
    if is_token(password.as_bytes()) {
        bail!("a password must not look like a device token; use --token to make one");
    }
    Ok(password)
}

fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("can't read {}", path.display())),
    }
}

/// Keeps mode, owner and group of a file that is there; a new one is for its owner alone.
fn write(path: &Path, text: &str) -> Result<()> {
    let there = fs::metadata(path).ok();
    let mode = there.as_ref().map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
    let mut name = path.file_name().context("the auth.file has no name")?.to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        if let Some(there) = &there {
            fchown(&file, Some(there.uid()), Some(there.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.with_context(|| format!("can't write {}", path.display()))
}
