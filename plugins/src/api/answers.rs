//! What a hook returns: objects that say what to do. They are made by scripts, and read after the hook has returned.
//!
//! ```text
//! postroad.refuse("quota_exceeded", "…")  =  { "refuse", "quota_exceeded", "…" } with the metatable of answers
//! ```

use base::{Qos, ReasonCode, TopicFilter};
use bytestring::ByteString;
use postroad_base as base;

use super::fields::{read_part, reason_code};
use super::{is_of_type, saying};
use crate::call::{Draft, Subject};
use crate::lua::{Fault, Kind, Returned, Stack};

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Given {
    Drop,
    Refuse(ReasonCode),
    Park(ByteString),
    Split(Vec<Draft>),
    Stop,
    Deny(ReasonCode),
    Groups(Vec<ByteString>),
    Requeue,
    Publish(Vec<Draft>),
}

impl Given {
    /// What a script calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Refuse(_) => "refuse",
            Self::Park(_) => "park",
            Self::Split(_) => "split",
            Self::Stop => "stop",
            Self::Deny(_) => "deny",
            Self::Groups(_) => "groups",
            Self::Requeue => "requeue",
            Self::Publish(_) => "publish",
        }
    }
}

/// Makes the answer of this name from the arguments of the running function. May raise.
fn make(stack: Stack<'_>, name: &str, arguments: i32) -> Returned {
    stack.set_top(arguments);
    stack.push_table(3, 0);
    stack.push_bytes(name.as_bytes());
    stack.raw_set_at(-2, 1);
    for argument in 1..=arguments {
        stack.push_copy(argument);
        stack.raw_set_at(-2, i64::from(argument) + 1);
    }
    stack.push_reference(stack.host().kept.answer_type);
    stack.set_metatable(-2);
    Ok(1)
}

fn check_text(stack: Stack<'_>, number: u8, is_needed: bool) -> Result<(), Fault> {
    let is_there = !stack.is_nil(number.into());
    if (is_there || is_needed) && stack.text(number.into()).is_none() {
        return Err(Fault::Argument(number, "expected a text"));
    }
    Ok(())
}

const NO_REASON: &str = "expected a reason code from 0x80 on, or its name, such as \"not_authorized\"";

pub(super) fn drop(stack: Stack<'_>) -> Returned {
    check_text(stack, 1, false)?;
    make(stack, "drop", 1)
}

pub(super) fn refuse(stack: Stack<'_>) -> Returned {
    reason_code(stack, 1).ok_or(Fault::Argument(1, NO_REASON))?;
    check_text(stack, 2, false)?;
    make(stack, "refuse", 2)
}

pub(super) fn park(stack: Stack<'_>) -> Returned {
    check_text(stack, 1, true)?;
    make(stack, "park", 1)
}

pub(super) fn split(stack: Stack<'_>) -> Returned {
    check_parts(stack)?;
    make(stack, "split", 1)
}

pub(super) fn stop(stack: Stack<'_>) -> Returned {
    make(stack, "stop", 0)
}

pub(super) fn deny(stack: Stack<'_>) -> Returned {
    if !stack.is_nil(1) {
        reason_code(stack, 1).ok_or(Fault::Argument(1, NO_REASON))?;
    }
    check_text(stack, 2, false)?;
    make(stack, "deny", 2)
}

pub(super) fn groups(stack: Stack<'_>) -> Returned {
    read_groups(stack, 1).map(std::mem::drop)?;
    make(stack, "groups", 1)
}

pub(super) fn requeue(stack: Stack<'_>) -> Returned {
    make(stack, "requeue", 0)
}

pub(super) fn publish(stack: Stack<'_>) -> Returned {
    // One message may stand for a list of one.
    if stack.kind(1) == Kind::Table && stack.raw_len(1) == 0 {
        stack.set_top(1);
        stack.push_table(1, 0);
        stack.insert(1);
        stack.raw_set_at(1, 1);
    }
    check_parts(stack)?;
    make(stack, "publish", 1)
}

pub(super) fn matches(stack: Stack<'_>) -> Returned {
    let filter = stack.text(1).ok_or(Fault::Argument(1, "expected a topic filter"))?;
    let topic = stack.text(2).ok_or(Fault::Argument(2, "expected a topic name"))?;
    stack.host().charge_bytes(filter.len() + topic.len())?;
    let is_filter = TopicFilter::new(filter).is_ok();
    if !is_filter {
        return Err(Fault::Argument(1, "expected a topic filter"));
    }
    stack.push_boolean(base::filter_matches(filter, topic));
    Ok(1)
}

/// What is wrong with parts is said in the line that makes them. They are read again from the answer, which the script may have changed since.
fn check_parts(stack: Stack<'_>) -> Result<(), Fault> {
    let bytes = stack.host().call.bytes;
    read_parts(stack, 1, Qos::ExactlyOnce, stack.host().limits.results)?;
    stack.host().call.bytes = bytes;
    Ok(())
}

pub(crate) fn part_from_table(stack: Stack<'_>, table: i32, qos_max: Qos) -> Result<Draft, Fault> {
    read_part(stack, table, qos_max)
}

fn read_parts(stack: Stack<'_>, table: i32, qos_max: Qos, most: usize) -> Result<Vec<Draft>, Fault> {
    if stack.kind(table) != Kind::Table {
        return Err(Fault::Text("expected an array of tables with the fields of a message"));
    }
    let table = stack.absolute(table);
    let count = stack.raw_len(table);
    if count == 0 || count > most {
        return Err(saying(stack, format_args!("expected 1 to {most} messages, not {count}")));
    }
    stack.host().charge(count as u64)?;
    let mut parts = Vec::with_capacity(count);
    for place in 1..=count {
        if !stack.has_room(2) {
            return Err(Fault::Text("no room on the stack"));
        }
        stack.raw_get_at(table, place as i64);
        parts.push(read_part(stack, -1, qos_max)?);
        stack.pop(1);
    }
    Ok(parts)
}

fn read_groups(stack: Stack<'_>, table: i32) -> Result<Vec<ByteString>, Fault> {
    let fault =
        Fault::Text("expected an array of names of groups: texts without '/', '+', '#', not beginning with '$'");
    if stack.kind(table) != Kind::Table {
        return Err(fault);
    }
    let table = stack.absolute(table);
    let count = stack.raw_len(table);
    if count > stack.host().limits.results {
        return Err(saying(stack, format_args!("more than {} groups", stack.host().limits.results)));
    }
    let mut names = Vec::with_capacity(count);
    for place in 1..=count {
        stack.raw_get_at(table, place as i64);
        names.push(stack.text(-1).filter(|name| base::is_user_name(name)).ok_or(fault)?.into());
        stack.pop(1);
    }
    Ok(names)
}

/// Reads one result of a hook. Raises nothing.
pub(crate) fn read_given(stack: Stack<'_>, index: i32) -> Result<Given, Fault> {
    let index = stack.absolute(index);
    if !stack.has_room(12) {
        return Err(Fault::Text("no room on the stack"));
    }
    if !is_of_type(stack, index, stack.host().kept.answer_type) {
        return Err(saying(
            stack,
            format_args!("{} is no answer: see postroad.drop and others", stack.kind(index).name()),
        ));
    }
    stack.raw_get_at(index, 1);
    stack.raw_get_at(index, 2);
    let argument = stack.top();
    let given = match stack.bytes(argument - 1).unwrap_or_default() {
        b"drop" => Given::Drop,
        b"refuse" => Given::Refuse(reason_code(stack, argument).ok_or(Fault::Text(NO_REASON))?),
        b"park" => Given::Park(stack.text(argument).ok_or(Fault::Text("a note must be a text"))?.into()),
        b"split" => {
            let qos_max = match stack.host().call.subject() {
                Subject::Message(message, _) => message.qos,
                _ => Qos::ExactlyOnce,
            };
            Given::Split(read_parts(stack, argument, qos_max, stack.host().limits.results)?)
        }
        b"stop" => Given::Stop,
        b"deny" if stack.is_nil(argument) => Given::Deny(ReasonCode::NotAuthorized),
        b"deny" => Given::Deny(reason_code(stack, argument).ok_or(Fault::Text(NO_REASON))?),
        b"groups" => Given::Groups(read_groups(stack, argument)?),
        b"requeue" => Given::Requeue,
        b"publish" => {
            let parts = read_parts(stack, argument, Qos::ExactlyOnce, stack.host().limits.results)?;
            if parts.iter().any(|part| part.topic.is_none()) {
                return Err(Fault::Text("a message to publish needs a topic"));
            }
            Given::Publish(parts)
        }
        _ => return Err(Fault::Text("an answer was changed so that it means nothing")),
    };
    stack.set_top(argument - 2);
    Ok(given)
}
