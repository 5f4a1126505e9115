//! `postroad client list|top|show|pending|acknowledge|kick|drain|register|unregister`.

use std::io::Write;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Api, escaped, told};
use crate::cli::{ApiArgs, ClientAction, ClientFilter};

/// Runs the command.
pub fn client(action: &ClientAction) -> Result<()> {
    match action {
        ClientAction::List { api, filter, limit } => list(api, filter, limit.unwrap_or(u64::MAX)),
        ClientAction::Top { api, filter, limit } => {
            let order = [("order", "backlog".to_owned()), ("limit", limit.to_string())];
            let page = Api::new(api).get("/v1/clients", &[parameters(filter), order.to_vec()].concat())?;
            Table::new(api.json).rows(clients(&page)?)
        }
        ClientAction::Show { api, client } => show(api, &Api::new(api).get(&path(client), &[])?),
        ClientAction::Pending { api, client, limit } => pending(api, client, limit.unwrap_or(u64::MAX)),
        ClientAction::Acknowledge { api, client, deliveries } => acknowledge(api, client, deliveries),
        ClientAction::Kick { api, client } => {
            let after = Api::new(api).post(&format!("{}/disconnect", path(client)), &Value::Null)?;
            show(api, &after)
        }
        ClientAction::Drain { api, client } => {
            show(api, &Api::new(api).post(&format!("{}/drain", path(client)), &Value::Null)?)
        }
        ClientAction::Register { api, client, user, group } => {
            show(api, &Api::new(api).put(&path(client), &json!({ "user": user, "groups": group }))?)
        }
        ClientAction::Unregister { api, client } => {
            Api::new(api).delete(&path(client))?;
            Ok(())
        }
    }
}

fn list(api: &ApiArgs, filter: &ClientFilter, limit: u64) -> Result<()> {
    let mut table = Table::new(api.json);
    Api::new(api)
        .walk("/v1/clients", "clients", &parameters(filter), limit, |client| table.rows(std::slice::from_ref(client)))
}

fn pending(api: &ApiArgs, client: &str, limit: u64) -> Result<()> {
    Api::new(api).list(&format!("{}/messages", path(client)), "deliveries", &[], limit, PENDING)
}

const PENDING: super::Listing =
    ("DELIVERY         QUEUE        STATE     MESSAGE                          QOS  TOPIC", described_delivery);

fn described_delivery(delivery: &Value) -> String {
    let text = |name: &str| printable(delivery[name].as_str().unwrap_or("-"));
    let (id, queue, state) = (text("id"), text("queue"), text("state"));
    let (message, qos, topic) = (text("message_id"), delivery["qos"].as_u64().unwrap_or(0), text("topic"));
    format!("{id:<16} {queue:<12} {state:<9} {message:<32} {qos:<3}  {topic}")
}

/// What was over before is an error: whoever names it believes something else.
fn acknowledge(api: &ApiArgs, client: &str, deliveries: &[String]) -> Result<()> {
    let body = json!({ "deliveries": deliveries });
    let answer = Api::new(api).post(&format!("{}/messages/acknowledge", path(client)), &body)?;
    let names =
        |list: &str| answer[list].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    let mut out = told();
    match api.json {
        true => writeln!(out, "{answer}")?,
        false => names("acknowledged").iter().try_for_each(|name| writeln!(out, "{name}: acknowledged"))?,
    }
    let gone = names("gone");
    if !gone.is_empty() {
        bail!("over before, or not this client's: {}", gone.join(" "));
    }
    Ok(())
}

fn parameters(filter: &ClientFilter) -> Vec<(&'static str, String)> {
    let ClientFilter { connected, offline, user, group, prefix, backlog } = filter;
    let connected = (*connected || *offline).then(|| ("connected", connected.to_string()));
    let texts = [("user", user), ("group", group), ("prefix", prefix)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?)));
    let backlog = backlog.map(|least| ("backlog_min", least.to_string()));
    connected.into_iter().chain(texts).chain(backlog).collect()
}

fn clients(page: &Value) -> Result<&Vec<Value>> {
    page["clients"].as_array().context("the answer has no clients")
}

fn path(client: &str) -> String {
    format!("/v1/clients/{}", escaped(client))
}

/// A thing, as JSON: in one line, or for people.
pub fn show(api: &ApiArgs, client: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if api.json {
        writeln!(out, "{client}")?;
    } else {
        // JSON escapes the control characters of ASCII; others would reach the terminal.
        serde_json::to_string_pretty(client)?.lines().try_for_each(|line| writeln!(out, "{}", printable(line)))?;
    }
    Ok(())
}

/// A line for each client, below a head that comes with the first.
struct Table {
    json: bool,
    has_head: bool,
}

impl Table {
    fn new(json: bool) -> Self {
        Self { json, has_head: json }
    }

    fn rows(&mut self, clients: &[Value]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if !std::mem::replace(&mut self.has_head, true) {
            writeln!(out, "{:<32} {:<16} {:<7} {:>9} {:>12}  ADDRESS", "CLIENT", "USER", "STATE", "BACKLOG", "BYTES")?;
        }
        for client in clients {
            if self.json {
                writeln!(out, "{client}")?;
                continue;
            }
            let state = match (client["connected"] == true, client["session"].is_null()) {
                (true, _) => "here",
                (false, false) => "away",
                (false, true) => "known",
            };
            let text = |name: &str| client[name].as_str().unwrap_or("-");
            let bytes = ["session", "registration"].map(|part| client[part]["queue"]["bytes"].as_u64().unwrap_or(0));
            writeln!(
                out,
                "{:<32} {:<16} {state:<7} {:>9} {:>12}  {}",
                printable(text("client")),
                printable(text("user")),
                client["backlog"].as_u64().unwrap_or(0),
                bytes[0] + bytes[1],
                text("address"),
            )?;
        }
        Ok(())
    }
}

/// A client chose its name: it shall not steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_identifier_has_a_path() {
        assert_eq!(path("truck-7"), "/v1/clients/truck-7");
        assert_eq!(path("a/b?c é.."), "/v1/clients/a%2Fb%3Fc%20%C3%A9%2E%2E");
    }
}
