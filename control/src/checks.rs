//! How much a caller may ask for at once, and how surely it is published, whatever the transport.

use postroad_base::{Qos, Wishes};
pub(crate) use postroad_proto::MESSAGES_MAX;

use crate::problem::{Kind, Problem};
use crate::publication::Publication;

/// Clients or letters of one answer, if nothing else is said, and at most.
pub(crate) const LIMIT: usize = 100;
pub(crate) const LIMIT_MAX: usize = 1_000;
/// How much larger than its body a request may be, once each topic has its message.
const SPREAD_MAX: usize = 8;

/// A short text may ask for much: many topics with the same long payload.
pub(crate) fn check_spread(messages: &[Publication], body_bytes_max: usize) -> Result<(), Problem> {
    let bytes: usize = messages.iter().map(Publication::bytes).sum();
    if messages.len() > MESSAGES_MAX || bytes > SPREAD_MAX * body_bytes_max {
        let most = SPREAD_MAX * body_bytes_max;
        let detail = format!(
            "more than {MESSAGES_MAX} messages, or {most} bytes of them: each topic counts; send them in parts"
        );
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    Ok(())
}

/// A number of this name that says how many a page has: 0 stands for the usual.
pub(crate) fn page_limit(name: &str, limit: u32) -> Result<usize, Problem> {
    match limit as usize {
        0 => Ok(LIMIT),
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(Problem::bad(format!("{name} must be at most {LIMIT_MAX}"))),
    }
}

pub(crate) fn qos_of(number: Option<u32>) -> Result<Qos, String> {
    let number = number.unwrap_or(1);
    let qos = u8::try_from(number).ok().and_then(Qos::from_number);
    qos.ok_or_else(|| format!("qos must be 0, 1 or 2, not {number}"))
}

/// A key names one message: for a second topic it would be another one under the same key, a conflict each time.
pub(crate) fn check_key(wishes: &Wishes, topics: usize) -> Result<(), String> {
    match wishes.idempotency_key {
        Some(_) if topics > 1 => {
            Err("an idempotency key is of one topic: publish to each under a key of its own".into())
        }
        _ => Ok(()),
    }
}
