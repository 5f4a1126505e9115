//! `postroad plugin try`: what plugins would do with messages and letters that somebody kept.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use postroad_base::{ClientId, Message, WallMillis};
use postroad_plugins::trial::{Done, Publisher, Trial, Tried};
use serde_json::{Value, json};

use super::args::TryArgs;
use super::files::{limits, set, told};
use super::messages::{self, Kept, differences, fields};
use crate::api;

/// Runs the command; whether no hook failed.
pub fn trial(args: &TryArgs) -> Result<bool> {
    let now = messages::now()?;
    let mut trial = match Trial::new(&set(&args.plugins)?, &limits(&args.plugins)?, now) {
        Ok(trial) => trial,
        Err(flaws) => return told(&flaws),
    };
    let mut telling =
        Telling { out: std::io::stdout().lock(), args, actions: BTreeMap::new(), besides: 0, failures: 0, count: 0 };
    if let Some(file) = &args.messages {
        for kept in messages::read(file)? {
            telling.tell(&kept, &tried(&mut trial, args, &kept, now))?;
        }
    } else {
        api::each_letter(&args.api, &args.filter, |letter| {
            let kept = messages::understood(letter)?;
            telling.tell(&kept, &tried(&mut trial, args, &kept, now))
        })?;
    }
    telling.end()
}

/// A message is tried at the time at which it came; a letter now: that is when a reload would show it to nobody, and a requeue would send it.
fn tried(trial: &mut Trial, args: &TryArgs, kept: &Kept, now: WallMillis) -> Tried {
    if kept.message.death().is_some() {
        return trial.dead_letter(now, &kept.message);
    }
    let names = kept.groups.as_ref().unwrap_or(&args.from_group);
    let publisher = Publisher {
        client: ClientId::from(kept.client.as_ref().unwrap_or(&args.from).as_str()),
        user: kept.user.as_ref().or(args.from_user.as_ref()).map(|name| name.as_str().into()),
        groups: names.iter().map(|name| name.as_str().into()).collect(),
        is_application: args.application,
    };
    trial.publish(kept.at.unwrap_or(now), &kept.message, &publisher)
}

struct Telling<'a> {
    out: std::io::StdoutLock<'static>,
    args: &'a TryArgs,
    /// How often each was the answer.
    actions: BTreeMap<&'static str, usize>,
    besides: usize,
    failures: usize,
    count: usize,
}

impl Telling<'_> {
    fn tell(&mut self, kept: &Kept, tried: &Tried) -> Result<()> {
        self.count += 1;
        *self.actions.entry(action(&tried.done)).or_default() += 1;
        self.besides += tried.besides.len();
        self.failures += tried.failures.len();
        let is_plain = tried.done == Done::Keep && tried.besides.is_empty() && tried.failures.is_empty();
        if is_plain && !self.args.all {
            return Ok(());
        }
        let text = if self.args.api.json { format!("{}\n", as_json(kept, tried)) } else { as_text(kept, tried) };
        Ok(self.out.write_all(text.as_bytes())?)
    }

    fn end(mut self) -> Result<bool> {
        let Self { out, args, actions, besides, failures, count } = &mut self;
        if args.api.json {
            let line = json!({ "count": count, "actions": actions, "besides": besides, "failures": failures });
            writeln!(out, "{line}")?;
        } else {
            let told: Vec<String> = actions.iter().map(|(action, count)| format!("{count} {action}")).collect();
            let told = if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) };
            writeln!(out, "{count} in all{told}; {besides} published besides; {failures} failures")?;
        }
        Ok(self.failures == 0)
    }
}

fn action(done: &Done) -> &'static str {
    match done {
        Done::Keep => "keep",
        Done::Replace(made) if made.len() > 1 => "split",
        Done::Replace(_) => "change",
        Done::Drop => "drop",
        Done::Refuse(_) => "refuse",
        Done::Park(_) => "park",
        Done::Requeue(_) => "requeue",
        Done::Publish(_) => "publish",
    }
}

/// What goes on in the place of what came.
fn made(done: &Done) -> &[Message] {
    match done {
        Done::Replace(made) => made,
        Done::Requeue(made) | Done::Publish(made) => std::slice::from_ref(made),
        _ => &[],
    }
}

/// What is said with it.
fn note(done: &Done) -> Option<String> {
    match done {
        Done::Refuse(reason) => Some(reason.name().to_owned()),
        Done::Park(note) => Some(note.clone()),
        _ => None,
    }
}

fn as_text(kept: &Kept, tried: &Tried) -> String {
    let letter = kept.letter.as_ref().map(|letter| format!("{letter} ")).unwrap_or_default();
    let mut text = format!("{letter}{}: {}", kept.message.topic.as_str(), action(&tried.done));
    text += &note(&tried.done).map(|note| format!(": {note}")).unwrap_or_default();
    text.push('\n');
    let made = made(&tried.done);
    for (place, one) in made.iter().enumerate() {
        if made.len() > 1 {
            text += &format!("  {} of {}\n", place + 1, made.len());
        }
        for (name, before, after) in differences(&kept.message, one) {
            text += &format!("  {name:<18} {before}\n  {:<18} {after}\n", "->");
        }
    }
    for message in &tried.besides {
        text += &format!("  besides            {} {}\n", message.topic.as_str(), fields(message)[1].1);
    }
    for failure in &tried.failures {
        text += &format!("  error              {failure}\n");
    }
    text
}

fn as_json(kept: &Kept, tried: &Tried) -> Value {
    let changes = |made: &Message| -> Value {
        let differences = differences(&kept.message, made).into_iter();
        differences.map(|(name, from, to)| json!({ "field": name, "from": from, "to": to })).collect()
    };
    json!({
        "topic": kept.message.topic.as_str(),
        "letter": kept.letter,
        "action": action(&tried.done),
        "note": note(&tried.done),
        "changes": made(&tried.done).iter().map(changes).collect::<Vec<_>>(),
        "besides": tried.besides.iter().map(|message| message.topic.as_str()).collect::<Vec<_>>(),
        "failures": tried.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
