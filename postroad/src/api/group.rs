//! `postroad group list|create|show|delete|take|ack|refuse`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::client::{printable, show};
use super::{Api, Listing, escaped, told};
use crate::cli::{ApiArgs, DeliveryArgs, GroupAction, TakeArgs};

/// Exit code of a take that found nothing: for loops of a shell.
const EXIT_NOTHING: u8 = 3;

/// Runs the command.
pub fn group(action: &GroupAction) -> Result<ExitCode> {
    match action {
        GroupAction::List { api } => list(api)?,
        GroupAction::Create { api, group, filters } => {
            let done = Api::new(api).put(&path(group, ""), &json!({ "filters": filters }))?;
            tell(api, &done, if done["is_new"] == true { "made" } else { "changed" })?;
        }
        GroupAction::Show { api, group } => show(api, &Api::new(api).get(&path(group, ""), &[])?)?,
        GroupAction::Delete { api, group } => tell(api, &Api::new(api).delete(&path(group, ""))?, "deleted")?,
        GroupAction::Take(args) => return take(args),
        GroupAction::Ack { api, deliveries } => answer(api, deliveries, "acknowledge", json!({}))?,
        GroupAction::Refuse { api, deliveries, after, dead, reason } => {
            let mut said = json!({ "dead": dead });
            if let Some(after) = after {
                said["after_seconds"] = (*after).into();
            }
            if let Some(reason) = reason {
                said["reason"] = reason.as_str().into();
            }
            answer(api, deliveries, "refuse", said)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(group: &str, action: &str) -> String {
    let group = escaped(group);
    if action.is_empty() { format!("/v1/groups/{group}") } else { format!("/v1/groups/{group}/{action}") }
}

fn tell(api: &ApiArgs, done: &Value, word: &str) -> Result<()> {
    let mut out = told();
    match api.json {
        true => writeln!(out, "{done}")?,
        false => writeln!(out, "{}: {word}", printable(done["group"].as_str().unwrap_or("-")))?,
    }
    Ok(())
}

fn list(api: &ApiArgs) -> Result<()> {
    Api::new(api).list("/v1/groups", "groups", &[], u64::MAX, GROUPS)
}

const GROUPS: Listing = ("GROUP                              WAITING    LEASED        BYTES  FILTERS", described);

fn described(group: &Value) -> String {
    let number = |name: &str| group[name].as_u64().unwrap_or(0);
    let filters = group["filters"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let filters = printable(&filters.collect::<Vec<_>>().join(" "));
    let name = printable(group["group"].as_str().unwrap_or("-"));
    let (waiting, leased, bytes) = (number("waiting"), number("leased"), number("bytes"));
    format!("{name:<32} {waiting:>9} {leased:>9} {bytes:>12}  {filters}")
}

fn take(args: &TakeArgs) -> Result<ExitCode> {
    let TakeArgs { api, group, limit, lease, wait, ack } = args;
    let server = Api::new(api);
    let asked = json!({ "limit": limit, "lease_seconds": lease, "wait_seconds": wait });
    let taken = server.post(&path(group, "take"), &asked)?;
    let deliveries = taken["deliveries"].as_array().context("the answer has no deliveries")?;
    // What is not read is not done: it stays leased, and is not acknowledged.
    print(api, deliveries).context("can't write what was taken: it is given again when its lease is over")?;
    if *ack && !deliveries.is_empty() {
        let names: Vec<&str> = deliveries.iter().filter_map(|delivery| delivery["delivery"].as_str()).collect();
        check(&server.post(&path(group, "acknowledge"), &json!({ "deliveries": names }))?)?;
    }
    Ok(if deliveries.is_empty() { ExitCode::from(EXIT_NOTHING) } else { ExitCode::SUCCESS })
}

fn print(api: &ApiArgs, deliveries: &[Value]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for delivery in deliveries {
        if api.json {
            writeln!(out, "{delivery}")?;
            continue;
        }
        let text = |name: &str| printable(delivery[name].as_str().unwrap_or(""));
        let payload = if delivery["payload"].is_null() { "payload_base64" } else { "payload" };
        writeln!(out, "{}  {}  {}", text("delivery"), text("topic"), text(payload))?;
    }
    out.flush()
}

fn answer(api: &ApiArgs, args: &DeliveryArgs, action: &str, mut said: Value) -> Result<()> {
    let DeliveryArgs { group, deliveries } = args;
    said["deliveries"] = deliveries.as_slice().into();
    let answered = Api::new(api).post(&path(group, action), &said)?;
    let mut out = told();
    match api.json {
        true => writeln!(out, "{answered}")?,
        false => writeln!(out, "{} done", answered["done"].as_u64().unwrap_or(0))?,
    }
    check(&answered)
}

/// What was not done is an error.
fn check(answered: &Value) -> Result<()> {
    let gone: Vec<&str> = answered["gone"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !gone.is_empty() {
        bail!("over, or somebody else's: {}", gone.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_a_path() {
        assert_eq!(path("orders", ""), "/v1/groups/orders");
        assert_eq!(path("a b/c", "take"), "/v1/groups/a%20b%2Fc/take");
    }
}
