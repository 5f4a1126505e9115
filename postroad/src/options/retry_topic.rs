//! `[[retry.topic]]`: how the messages of some topics are retried. Each table is what the rows `retry.*` say, for a filter.

use std::fmt::Write;
use std::time::Duration;

use postroad_base::TopicFilter;
use postroad_engine::config::RetryTopic;

use super::load::did_you_mean;
use super::{Value, row};

/// The keys beside `filter`, as those of the rows below `retry.`, whose kinds hold.
const KEYS: [&str; 5] = ["max_attempts", "max_age", "immediate", "backoff_min", "backoff_max"];

/// Understands one table.
///
/// # Errors
/// What is wrong with it, and what is allowed.
pub fn parse(entry: toml::Value) -> Result<RetryTopic, String> {
    let toml::Value::Table(table) = entry else { return Err("must be a table".into()) };
    let mut topic = RetryTopic {
        filter: filter(table.get("filter"))?,
        max_attempts: None,
        max_age: None,
        immediate: None,
        backoff_min: None,
        backoff_max: None,
    };
    for (key, value) in table.iter().filter(|(key, _)| *key != "filter") {
        let known = KEYS.contains(&key.as_str()).then(|| row(&format!("retry.{key}"))).flatten();
        let known = known.ok_or_else(|| {
            let keys = KEYS.into_iter().chain(["filter"]).map(str::to_owned);
            format!("unknown key {key}{}", did_you_mean(key, keys))
        })?;
        let value = known.kind.read(value).map_err(|allowed| format!("{key} = {value}: must be {allowed}"))?;
        put(&mut topic, key, &value);
    }
    let waits = (topic.backoff_min, topic.backoff_max);
    if let (Some(min), Some(max)) = waits
        && min > max
    {
        return Err("backoff_min must be at most backoff_max".into());
    }
    Ok(topic)
}

fn filter(value: Option<&toml::Value>) -> Result<TopicFilter, String> {
    let value = value.ok_or("filter is missing: write filter = \"alarm/#\" or the like")?;
    let text = value.as_str().ok_or_else(|| format!("filter = {value}: must be a text"))?;
    let filter = TopicFilter::new(text).map_err(|error| format!("filter = {value}: {error}"))?;
    if text.starts_with("$share/") {
        return Err(format!(
            "filter = {value}: leave out $share/<name>/, it is about messages, not about who gets them"
        ));
    }
    Ok(filter)
}

fn put(topic: &mut RetryTopic, key: &str, value: &Value) {
    let number = || Some(u32::try_from(value.number()).expect("the row's kind has checked it"));
    let time = || Some(Duration::from_millis(value.number()));
    match key {
        "max_attempts" => topic.max_attempts = number(),
        "max_age" => topic.max_age = time(),
        "immediate" => topic.immediate = number(),
        "backoff_min" => topic.backoff_min = time(),
        "backoff_max" => topic.backoff_max = time(),
        _ => unreachable!("one of KEYS"),
    }
}

/// The table as it can be read again.
pub fn show(topic: &RetryTopic) -> String {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let values = [
        topic.max_attempts.map(u64::from),
        topic.max_age.map(millis),
        topic.immediate.map(u64::from),
        topic.backoff_min.map(millis),
        topic.backoff_max.map(millis),
    ];
    let filter = toml::Value::String(topic.filter.as_str().to_owned());
    let mut out = format!("[[retry.topic]]\nfilter = {filter}\n");
    for (key, value) in KEYS.into_iter().zip(values) {
        let known = row(&format!("retry.{key}")).expect("each key is a row's");
        if let Some(value) = value {
            writeln!(out, "{key} = {}", known.kind.toml(&Value::Number(value))).expect("a String takes all");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<RetryTopic, String> {
        parse(toml::Value::Table(text.parse().expect("TOML")))
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in [
            "filter = \"a/#\"",
            "filter = '$client/+/alarm'\nmax_attempts = 3\nmax_age = '90s'\nimmediate = 0\nbackoff_min = '1s'\nbackoff_max = '1h'",
        ] {
            let topic = parsed(text).expect("valid");
            let shown = show(&topic);
            assert_eq!(parsed(shown.trim_start_matches("[[retry.topic]]")), Ok(topic), "{shown}");
        }
    }

    #[test]
    fn what_can_t_be_is_explained() {
        for (text, words) in [
            ("max_attempts = 3", "filter is missing"),
            ("filter = 7", "must be a text"),
            ("filter = 'a/#/b'", "filter = \"a/#/b\": "),
            ("filter = '$share/g/a'", "leave out $share/<name>/"),
            ("filter = 'a'\nmax_atempts = 3", "did you mean max_attempts?"),
            ("filter = 'a'\nper_second = 3", "unknown key per_second"),
            ("filter = 'a'\nmax_attempts = -1", "must be 0 to 1000000 sends"),
            ("filter = 'a'\nmax_age = 5", "must be 0s to 3650d"),
            ("filter = 'a'\nbackoff_min = '2s'\nbackoff_max = '1s'", "at most backoff_max"),
        ] {
            let said = parsed(text).expect_err(text);
            assert!(said.contains(words), "{text}\ngave {said:?} without {words:?}");
        }
    }
}
