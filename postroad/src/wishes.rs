//! What is wished for messages on the command line, as each transport has it.

use postroad_base::wish_property;
use serde_json::{Value, json};

use crate::cli::WishArgs;

impl WishArgs {
    /// As user properties of MQTT 5.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let Self { priority, collapse_key, deliver_at, deliver_after, idempotency_key, receipt, .. } = self;
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let given = [
            (wish_property::PRIORITY, priority.clone()),
            (wish_property::COLLAPSE_KEY, collapse_key.clone()),
            (wish_property::DELIVER_AT, number(*deliver_at)),
            (wish_property::DELIVER_AFTER, number(*deliver_after)),
            (wish_property::IDEMPOTENCY_KEY, idempotency_key.clone()),
            (wish_property::RECEIPT, receipt.clone()),
            (wish_property::RETRY_ATTEMPTS_MAX, number(self.retry_attempts_max.map(u64::from))),
            (wish_property::RETRY_AGE_MAX, number(self.retry_age_max)),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// As the API has them.
    pub fn json(&self) -> Value {
        json!({
            "priority": self.priority,
            "collapse_key": self.collapse_key,
            "deliver_at_unix_ms": self.deliver_at,
            "deliver_after_seconds": self.deliver_after,
            "idempotency_key": self.idempotency_key,
            "receipt": self.receipt,
            "retry_attempts_max": self.retry_attempts_max,
            "retry_age_max_seconds": self.retry_age_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use postroad_base::{WallMillis, Wishes};

    use super::*;

    /// Each property is one that the server knows, with a value that it takes.
    #[test]
    fn all_wishes_are_understood() {
        let all = WishArgs {
            priority: Some("high".into()),
            collapse_key: Some("k".into()),
            deliver_at: Some(2_000_000),
            deliver_after: None,
            idempotency_key: Some("order 7".into()),
            receipt: Some("dead".into()),
            retry_attempts_max: Some(3),
            retry_age_max: Some(60),
        };
        let (mut wishes, now) = (Wishes::default(), WallMillis(1_000_000));
        for (name, value) in all.properties() {
            assert_eq!(wishes.take(name, &value, now), Ok(true), "{name}");
        }
        assert_eq!(wishes.deliver_at, Some(WallMillis(2_000_000)));
        assert_eq!(all.properties().len(), 7);
        let later = WishArgs { deliver_after: Some(5), ..WishArgs::default() };
        assert_eq!(later.properties(), [("postroad-deliver-after-seconds", "5".to_owned())]);
        assert_eq!(later.json()["deliver_after_seconds"], 5);
        assert_eq!(WishArgs::default().properties(), []);
    }
}
