//! Directed pushes: the reserved roots `$client/<id>/…`, `$user/<user>/…`, `$group/<name>/…`, `$all/…`
//! (DESIGN 5). The device sees the rest of the topic.

use base::TopicName;
use postroad_base as base;

/// The topic as the device sees it, if the message was directed.
pub(crate) fn topic_of_device(topic: &TopicName) -> Option<TopicName> {
    let text = topic.as_byte_string();
    if !text.starts_with('$') {
        return None;
    }
    let root = directed_root_len(text)?;
    TopicName::new(text.slice_ref(&text[root..])).ok()
}

/// Length of the root with its name and the slash after it, if a rest follows.
fn directed_root_len(text: &str) -> Option<usize> {
    if text.starts_with("$all/") {
        return Some("$all/".len());
    }
    let rest = ["$client/", "$user/", "$group/"].iter().find_map(|root| text.strip_prefix(root))?;
    let (_, tail) = rest.split_once('/')?;
    Some(text.len() - tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_sees_the_rest() {
        let check = |topic: &str| topic_of_device(&TopicName::new(topic).unwrap()).map(|t| t.as_str().to_owned());
        assert_eq!(check("$client/car-7/cmd/lock").as_deref(), Some("cmd/lock"));
        assert_eq!(check("$all/news").as_deref(), Some("news"));
        assert_eq!(check("$user/anna/"), None);
        assert_eq!(check("$client/car-7"), None);
        assert_eq!(check("$SYS/x"), None);
        assert_eq!(check("a/b"), None);
    }
}
