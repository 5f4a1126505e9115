//! `postroad token`: adds or removes a token of an `api.tokens_file` and leaves the rest, comments too, as it is.

use anyhow::{Context, Result, bail};
use postroad_control::Tokens;
use postroad_engine::auth::Token;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use crate::cli::TokenArgs;
use crate::secrets;

/// Runs the command.
pub fn token(args: &TokenArgs) -> Result<()> {
    let old = args.file.as_deref().map_or(Ok(String::new()), secrets::read)?;
    let mut document: DocumentMut = old.parse().context("the file is no TOML")?;
    let item = document.entry("token").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let tokens = item.as_array_of_tables_mut().context("token must be written as [[token]] tables")?;
    let secret = if args.delete {
        delete(tokens, &args.name)?;
        None
    } else {
        let token = Token::generate();
        tokens.push(entry(args, &token));
        Some(token)
    };
    let new = document.to_string();
    Tokens::parse(&new).context("nothing is changed")?;
    secrets::give_out(args.file.as_deref(), &new)?;
    if let Some(token) = secret {
        secrets::show(token.secret(), args.file.as_deref());
    }
    Ok(())
}

fn entry(args: &TokenArgs, token: &Token) -> Table {
    let mut entry = Table::new();
    entry["name"] = value(&args.name);
    entry["hash"] = value(token.stored());
    if !args.group.is_empty() {
        entry["groups"] = value(args.group.iter().collect::<Array>());
    }
    if !args.right.is_empty() {
        entry["rights"] = value(args.right.iter().collect::<Array>());
    }
    entry
}

fn delete(tokens: &mut ArrayOfTables, name: &str) -> Result<()> {
    let before = tokens.len();
    tokens.retain(|token| token.get("name").and_then(Item::as_str) != Some(name));
    if tokens.len() == before {
        bail!("there is no token of {name:?}");
    }
    Ok(())
}
