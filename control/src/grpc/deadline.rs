//! How long who calls will wait: `grpc-timeout`, at most eight digits and a unit.

use std::time::Duration;

use hyper::HeaderMap;

use crate::problem::Problem;

const DIGITS_MAX: usize = 8;

/// `None`: for as long as it takes.
pub(super) fn wait_of(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let wait = value.to_str().ok().and_then(parsed);
    wait.map(Some).ok_or_else(|| Problem::bad("grpc-timeout must be 1 to 8 digits and one of H, M, S, m, u and n"))
}

fn parsed(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_digits_and_a_unit() {
        let cases = [("1H", 3_600_000), ("2M", 120_000), ("3S", 3_000), ("99999999m", 99_999_999), ("5000u", 5)];
        for (text, millis) in cases {
            assert_eq!(parsed(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parsed("7n"), Some(Duration::from_nanos(7)));
        for text in ["", "S", "5", "-1S", "+1S", "1.5S", "123456789S", "1s", "1 S", "1ß"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
