//! What a reload changes: live values apply, restart values are named and stay.

use super::load::{ConfigError, open_doors};
use super::{Effect, ROWS, Settings};

/// The outcome of comparing a new configuration with the running one.
#[derive(Debug)]
pub struct Reload {
    /// What to run with from now on: the new live values, the old restart values.
    pub settings: Settings,
    /// Keys that change now, with the old and the new value.
    pub applied: Vec<String>,
    /// Keys that differ and wait for a restart.
    pub waiting: Vec<&'static str>,
}

/// Compares row by row. `new` has passed all checks already: the whole file applies or nothing.
///
/// # Errors
/// When the new live values don't go with the listeners, which stay as they are until the restart: taking
/// `auth.file` away together with the public listener must not leave that listener open meanwhile.
pub fn plan(old: &Settings, new: Settings) -> Result<Reload, ConfigError> {
    let mut reload = Reload { settings: new, applied: Vec::new(), waiting: Vec::new() };
    for row in ROWS {
        let (before, after) = ((row.get)(old), (row.get)(&reload.settings));
        if before == after {
            continue;
        }
        match row.effect {
            Effect::Live => {
                let change = format!("{}: {} -> {}", row.key, row.kind.toml(&before), row.kind.toml(&after));
                reload.applied.push(change);
            }
            Effect::Restart => {
                (row.set)(&mut reload.settings, &before);
                reload.waiting.push(row.key);
            }
        }
    }
    let (before, after) = (&old.engine.retry_topics, &reload.settings.engine.retry_topics);
    if before != after {
        let change = format!("[[retry.topic]]: {} -> {} tables, or others", before.len(), after.len());
        reload.applied.push(change);
    }
    if old.tables != reload.settings.tables {
        reload.waiting.push("[[listener]]");
    }
    reload.settings.tables.clone_from(&old.tables);
    reload.settings.http.clone_from(&old.http);
    reload.settings.grpc.clone_from(&old.grpc);
    reload.settings.engine.listeners.clone_from(&old.engine.listeners);
    let problems = open_doors(&reload.settings);
    if problems.is_empty() { Ok(reload) } else { Err(ConfigError { problems }) }
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};
    use super::*;

    fn settings(sets: &[&str]) -> Settings {
        let sets = sets.iter().map(|s| (*s).to_owned()).collect();
        load(&Sources { file: None, data: None, sets }).expect("valid")
    }

    #[test]
    fn live_values_apply_and_restart_values_are_named() {
        let old = settings(&[]);
        let new = settings(&["queue.messages_max=7", "shards=3", "listen.mqtt=127.0.0.1:1999"]);
        let reload = plan(&old, new).expect("goes together");
        assert_eq!(reload.applied, ["queue.messages_max: 100000 -> 7"]);
        assert_eq!(reload.waiting, ["listen.mqtt", "shards"]);
        assert_eq!(reload.settings.engine.queue.messages_max, 7);
        assert_eq!(reload.settings.engine.shards, old.engine.shards);
        assert_eq!(reload.settings.engine.listeners, old.engine.listeners);
        assert!(old.engine.restart_differences(&reload.settings.engine).is_empty());
    }

    /// The new file alone is sound: it closes the public listener. But that waits for the restart.
    #[test]
    fn auth_file_can_t_be_taken_from_a_listener_that_stays() {
        let auth = tempfile::NamedTempFile::new().expect("a temporary file");
        let auth = format!("auth.file={}", auth.path().display());
        let public = settings(&["listen.mqtt=0.0.0.0:1883", &auth]);
        let error = plan(&public, settings(&[])).expect_err("must be refused");
        assert!(error.to_string().contains("0.0.0.0:1883") && error.to_string().contains("auth.file"), "{error}");
        assert!(plan(&public, settings(&[&auth])).is_ok());
    }

    #[test]
    fn tables_by_topic_apply_at_once() {
        let mut new = settings(&[]);
        let filter = postroad_base::TopicFilter::new("a").expect("a filter");
        new.engine.retry_topics.push(postroad_engine::config::RetryTopic {
            filter,
            max_attempts: Some(1),
            max_age: None,
            immediate: None,
            backoff_min: None,
            backoff_max: None,
        });
        let reload = plan(&settings(&[]), new).expect("goes together");
        assert_eq!(reload.applied, ["[[retry.topic]]: 0 -> 1 tables, or others"]);
        assert_eq!(reload.settings.engine.retry_topics.len(), 1);
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let reload = plan(&settings(&[]), settings(&[])).expect("goes together");
        assert!(reload.applied.is_empty() && reload.waiting.is_empty());
    }
}
