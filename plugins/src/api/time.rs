//! Times: the one of the call, and parts of any.

use super::say;
use crate::lua::{Fault, Returned, Stack};

/// The end of the year 9999, in milliseconds since 1970.
const MS_MAX: i64 = 253_402_300_799_999;

pub(super) fn now(stack: Stack<'_>) -> Returned {
    stack.push_integer(i64::try_from(stack.host().now.wall.0).unwrap_or(i64::MAX));
    Ok(1)
}

fn ms_argument(stack: Stack<'_>) -> Result<i64, Fault> {
    let ms = stack.integer(1).filter(|ms| (0..=MS_MAX).contains(ms));
    ms.ok_or(Fault::Argument(1, "expected milliseconds since 1970, up to the year 9999"))
}

pub(super) fn utc(stack: Stack<'_>) -> Returned {
    let ms = ms_argument(stack)?;
    let offset = if stack.is_nil(2) { Some(0) } else { stack.integer(2) };
    let offset = offset.filter(|minutes| minutes.abs() <= 24 * 60);
    let offset = offset.ok_or(Fault::Argument(2, "expected minutes: a whole number, a day at most"))?;
    let local = ms + offset * 60_000;
    if !(0..=MS_MAX).contains(&local) {
        return Err(Fault::Argument(2, "expected an offset that leads to a time from 1970 to the year 9999"));
    }
    let (second, millisecond) = (local / 1000, local % 1000);
    let (day, second) = (second / 86_400, second % 86_400);
    let (year, month, day_of_month) = date_of(day);
    stack.push_table(0, 8);
    for (name, value) in [
        ("year", year),
        ("month", month),
        ("day", day_of_month),
        ("hour", second / 3600),
        ("minute", second / 60 % 60),
        ("second", second % 60),
        ("millisecond", millisecond),
        ("weekday", (day + 3) % 7 + 1), // 1970 began on a Thursday
    ] {
        stack.push_integer(value);
        stack.raw_set_name(-2, name);
    }
    Ok(1)
}

/// Year, month and day of a day since 1970: read from the text that the house has one function for.
fn date_of(day: i64) -> (i64, i64, i64) {
    let text = postroad_base::utc(day as u64 * 86_400);
    let part = |range: std::ops::Range<usize>| text.get(range).and_then(|part| part.parse().ok()).unwrap_or_default();
    (part(0..4), part(5..7), part(8..10))
}

pub(super) fn text(stack: Stack<'_>) -> Returned {
    let ms = ms_argument(stack)?;
    say(stack, format_args!("{}", postroad_base::utc(ms as u64 / 1000)));
    stack.push_scratch();
    Ok(1)
}
