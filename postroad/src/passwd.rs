//! `postroad passwd`: changes one entry of an `auth.file` and leaves the rest, comments too, as it is. The new text is checked
//! as the server would.

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, Result, bail};
use postroad_engine::auth::{Anonymous, Auth, Token, hash_password, is_token};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use crate::cli::PasswdArgs;
use crate::secrets;

/// Runs the command.
pub fn passwd(args: &PasswdArgs) -> Result<()> {
    let old = args.file.as_deref().map_or(Ok(String::new()), secrets::read)?;
    let mut document: DocumentMut = old.parse().context("the auth.file is no TOML")?;
    if args.delete {
        delete(&mut document, &args.name)?;
    } else {
        change(&mut document, args)?;
    }
    let new = document.to_string();
    Auth::parse(&new, Anonymous::Deny).context("nothing is changed")?;
    secrets::give_out(args.file.as_deref(), &new)
}

fn change(document: &mut DocumentMut, args: &PasswdArgs) -> Result<()> {
    let user = entry(document, &args.name)?;
    for group in &args.group {
        add(user, "groups", group)?;
    }
    if args.token {
        let token = Token::generate();
        add(user, "tokens", &token.stored())?;
        secrets::show(token.secret(), args.file.as_deref());
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
