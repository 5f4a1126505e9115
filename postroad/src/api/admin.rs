//! `postroad admin status|reload|drain`.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::client::{printable, show};
use super::{Api, told};
use crate::cli::AdminAction;

/// Runs the command.
pub fn admin(action: &AdminAction) -> Result<()> {
    match action {
        AdminAction::Status { api } => show(api, &Api::new(api).get("/v1/admin/status", &[])?),
        AdminAction::Reload { api } => {
            let reloaded = Api::new(api).post("/v1/admin/reload", &json!({}))?;
            if api.json {
                return show(api, &reloaded);
            }
            Ok(write!(told(), "{}", described(&reloaded))?)
        }
        AdminAction::Drain { api } => {
            let answer = Api::new(api).post("/v1/admin/drain", &json!({}))?;
            if api.json {
                return show(api, &answer);
            }
            Ok(writeln!(told(), "it stops")?)
        }
    }
}

fn described(reloaded: &Value) -> String {
    let options = |name: &str| reloaded[name].as_array().cloned().unwrap_or_default();
    let text = |option: &Value| printable(option.as_str().unwrap_or("?"));
    let (applied, waiting) = (options("applied"), options("waiting"));
    let mut lines: Vec<String> = applied.iter().map(|option| format!("applied: {}", text(option))).collect();
    lines.extend(waiting.iter().map(|option| format!("waits for a restart: {}", text(option))));
    lines.push(
        "configuration, users, access rules and tokens are read anew; postroad plugin history tells of plugins"
            .to_owned(),
    );
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_told_line_by_line() {
        let text = described(&json!({ "applied": ["log.level: info -> debug"], "waiting": ["shards"] }));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["applied: log.level: info -> debug", "waits for a restart: shards"]);
        assert_eq!(described(&json!({})).lines().count(), 1);
    }
}
