//! `postroad.log`: lines of a plugin in the server's log, so many a second.

use crate::lua::{Returned, Stack};

/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 4_000;

pub(super) fn debug(stack: Stack<'_>) -> Returned {
    write(stack, |plugin, shard, line| tracing::debug!(plugin, shard, "{line}"))
}

pub(super) fn info(stack: Stack<'_>) -> Returned {
    write(stack, |plugin, shard, line| tracing::info!(plugin, shard, "{line}"))
}

pub(super) fn warn(stack: Stack<'_>) -> Returned {
    write(stack, |plugin, shard, line| tracing::warn!(plugin, shard, "{line}"))
}

pub(super) fn error(stack: Stack<'_>) -> Returned {
    write(stack, |plugin, shard, line| tracing::error!(plugin, shard, "{line}"))
}

/// Nothing here is raised while the line is owned, once the charge is paid.
fn write(stack: Stack<'_>, write: fn(&str, u16, &str)) -> Returned {
    stack.host().charge(100)?;
    let now = stack.host().now.mono;
    if !stack.host().account().log.takes_line(now) {
        return Ok(0);
    }
    let mut line = String::new();
    for index in 1..=stack.top() {
        if line.len() >= LINE_BYTES_MAX {
            break;
        }
        if index > 1 {
            line.push(' ');
        }
        stack.describe(index, &mut line);
    }
    let shard = stack.host().shard.0;
    write(stack.host().account().name.as_str(), shard, &line);
    Ok(0)
}
