//! `POST /v1/messages`: publishing.
//!
//! | content type | body | answer |
//! |---|---|---|
//! | any, with `?topic=` | the payload | what became of it |
//! | `application/json` | a message, or an array of them | the same, or `results` |
//! | `application/x-ndjson` | a message per line, for as long as it goes | a line for each, in order, as they come |
//!
//! A message is answered once it is as safe as `durability` asks (QoS 1 and 2).

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::json_page;
use crate::checks::{MESSAGES_MAX, check_key, check_spread, qos_of};
use crate::problem::{Kind, Problem};
use crate::publication::{
    Caller, GivenProperties, GivenWishes, Outcome, Properties, Publication, base64_of, checked, topic_of, wall_now,
};
use crate::shared::{Peer, Server};
use crate::tokens::Right;
use postroad_base::{Wishes, wish_property};

/// Lines of an open stream whose answers may wait to be read.
const ANSWERS_MAX: usize = 4;

/// What a publish of plain bytes says of itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    topic: Option<String>,
    qos: Option<u8>,
    retain: Option<bool>,
    ttl_seconds: Option<u32>,
}

/// A message in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    topic: Option<String>,
    topics: Option<Few<String>>,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(borrow, default, deserialize_with = "some")]
    payload_json: Option<&'a RawValue>,
    qos: Option<u8>,
    #[serde(default)]
    retain: bool,
    ttl_seconds: Option<u32>,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data_base64: Option<String>,
    #[serde(default)]
    properties: Few<(String, String)>,
    #[serde(default)]
    wishes: GivenWishes,
}

/// `null` is JSON, too.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// A list of at most [`MESSAGES_MAX`]: what is longer is refused before it is read to its end.
#[derive(Debug)]
struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Few<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MESSAGES_MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Few<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = access.next_element()? {
                    if list.len() == MESSAGES_MAX {
                        let why = format!("more than {MESSAGES_MAX} in a list: send them in parts");
                        return Err(serde::de::Error::custom(why));
                    }
                    list.push(item);
                }
                Ok(Few(list))
            }
        }

        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// What became of a message for one topic.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Published { topic: String, id: Option<String>, has_subscribers: bool },
    Failed { topic: String, error: Problem },
}

pub(super) async fn publish(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    line: Result<Query<Line>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Publish)?;
    let Query(line) = line.map_err(|error| Problem::bad(error.body_text()))?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = kind.map(|kind| kind.split(';').next().unwrap_or(kind).trim().to_ascii_lowercase());
    match (&line.topic, media.as_deref()) {
        (Some(_), _) => {
            let message = plain(line, &headers, server.whole(body).await?).map_err(Problem::bad)?;
            one(&server, &caller, message).await
        }
        (None, Some("application/json")) => {
            let body = server.whole(body).await?;
            json(&server, &caller, &body).await
        }
        (None, Some("application/x-ndjson")) => Ok(stream(server, caller, body)),
        _ => Err(Problem::new(
            Kind::UnsupportedMediaType,
            "either name the topic (?topic=…) and send the payload, or send application/json or application/x-ndjson",
        )),
    }
}

impl Server {
    /// The whole body, within its limits of size and time.
    pub(super) async fn whole(&self, body: Body) -> Result<Bytes, Problem> {
        let most = self.settings.body_bytes_max;
        let read = timeout(self.settings.request_timeout, to_bytes(body, most)).await;
        let late = |_| Problem::new(Kind::Timeout, "the body did not come in http.request_timeout");
        let large = |error| {
            let detail = format!("more than http.body_bytes_max ({most} bytes), or broken off: {error}");
            Problem::new(Kind::TooLarge, detail)
        };
        read.map_err(late)?.map_err(large)
    }
}

async fn one(server: &Server, caller: &Caller, message: Publication) -> Result<Response, Problem> {
    let topic = message.topic.as_str().to_owned();
    let outcome = server.api.publish(caller, vec![message], server.api.publish_deadline()).await[0];
    match answer(topic, outcome) {
        Answer::Failed { error, .. } => Err(error),
        published => Ok(json_page(&published)),
    }
}

async fn json(server: &Server, caller: &Caller, body: &[u8]) -> Result<Response, Problem> {
    let bytes_max = server.settings.body_bytes_max;
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let wrong = |error: serde_json::Error| Problem::bad(error.to_string());
    if !is_list {
        let asked = Asked::parse(body).map_err(Problem::bad)?;
        check_spread(&asked.messages, bytes_max)?;
        if asked.is_list {
            return Ok(json_page(&results(&publish_all(server, caller, asked.messages).await)));
        }
        let message = asked.messages.into_iter().next().expect("one topic, one message");
        return one(server, caller, message).await;
    }
    let Few(list): Few<&RawValue> = serde_json::from_slice(body).map_err(wrong)?;
    let mut messages = Vec::new();
    for (place, text) in list.into_iter().enumerate() {
        let asked = Asked::parse(text.get().as_bytes());
        messages.extend(asked.map_err(|why| Problem::bad(format!("message {place}: {why}")))?.messages);
        if messages.len() > MESSAGES_MAX {
            break; // `check_spread` says so
        }
    }
    check_spread(&messages, bytes_max)?;
    Ok(json_page(&results(&publish_all(server, caller, messages).await)))
}

/// What a message asks for: one for each of its topics.
struct Asked {
    messages: Vec<Publication>,
    /// Topics were listed, if only one.
    is_list: bool,
}

impl Asked {
    fn parse(text: &[u8]) -> Result<Self, String> {
        let message: Message<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let is_list = message.topics.is_some();
        Ok(Self { messages: publications(message)?, is_list })
    }
}

/// What became of several: one for each message and topic, in their order.
fn results(answers: &[Answer]) -> impl Serialize {
    #[derive(Serialize)]
    struct Results<'a> {
        results: &'a [Answer],
    }
    Results { results: answers }
}

async fn publish_all(server: &Server, caller: &Caller, messages: Vec<Publication>) -> Vec<Answer> {
    let topics: Vec<String> = messages.iter().map(|message| message.topic.as_str().to_owned()).collect();
    let outcomes = server.api.publish(caller, messages, server.api.publish_deadline()).await;
    topics.into_iter().zip(outcomes).map(|(topic, outcome)| answer(topic, outcome)).collect()
}

fn answer(topic: String, outcome: Outcome) -> Answer {
    match (Problem::of(outcome), outcome) {
        (Some(error), _) => Answer::Failed { topic, error },
        (None, Outcome::Published { id, has_subscribers }) => {
            Answer::Published { topic, id: id.map(|id| id.to_string()), has_subscribers }
        }
        (None, _) => unreachable!("what is not published is a problem"),
    }
}

/// Reads lines, publishes those that have come whole, and answers them, until the body ends or nobody reads the answers.
fn stream(server: Arc<Server>, caller: Caller, body: Body) -> Response {
    let (answers, answered) = flume::bounded::<Result<Bytes, Infallible>>(ANSWERS_MAX);
    tokio::spawn(async move {
        let mut body = body;
        let (mut lines, bytes_max) = (Lines::default(), server.settings.body_bytes_max);
        loop {
            let frame = body.frame().await;
            let is_end = !matches!(frame, Some(Ok(_)));
            if let Some(Ok(frame)) = frame
                && let Ok(data) = frame.into_data()
            {
                lines.bytes.extend_from_slice(&data);
            }
            let text = publish_lines(&server, &caller, lines.take(is_end)).await;
            let is_gone = !text.is_empty() && answers.send_async(Ok(text.into())).await.is_err();
            let is_too_long = lines.bytes.len() > bytes_max;
            if is_too_long {
                let problem = Problem::new(Kind::TooLarge, "a line above http.body_bytes_max");
                let _gone = answers.send_async(Ok(failed_line(problem).into())).await;
            }
            if is_end || is_gone || is_too_long {
                return;
            }
        }
    });
    let mut response = Body::from_stream(answered.into_stream()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// What has come of a stream and is not taken.
#[derive(Default)]
struct Lines {
    bytes: BytesMut,
    /// Of them, those that are known to hold no end of a line.
    looked_at: usize,
}

impl Lines {
    /// The lines that are whole; at the end the last one is, too.
    fn take(&mut self, is_end: bool) -> Bytes {
        let last = self.bytes[self.looked_at..].iter().rposition(|byte| *byte == b'\n');
        let whole = match last {
            _ if is_end => self.bytes.len(),
            Some(last) => self.looked_at + last + 1,
            None => 0,
        };
        let taken = self.bytes.split_to(whole).freeze();
        self.looked_at = self.bytes.len();
        taken
    }
}

/// The answers, a line for each line.
async fn publish_lines(server: &Server, caller: &Caller, lines: Bytes) -> String {
    let bytes_max = server.settings.body_bytes_max;
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let parsed: Vec<Result<Asked, Problem>> = lines
        .map(|line| {
            let asked = Asked::parse(line).map_err(Problem::bad)?;
            check_spread(&asked.messages, bytes_max)?;
            Ok(asked)
        })
        .collect();
    let messages = parsed.iter().flatten().flat_map(|asked| &asked.messages).cloned().collect();
    let mut answers = publish_all(server, caller, messages).await.into_iter();
    let mut text = String::new();
    for line in parsed {
        match line {
            Err(problem) => text += &failed_line(problem),
            Ok(asked) => {
                let of_line: Vec<Answer> = answers.by_ref().take(asked.messages.len()).collect();
                let line = match asked.is_list {
                    true => serde_json::to_string(&results(&of_line)),
                    false => serde_json::to_string(&of_line[0]),
                };
                text += &line.expect("texts and flags");
                text.push('\n');
            }
        }
    }
    text
}

fn failed_line(error: Problem) -> String {
    format!("{}\n", serde_json::json!({ "error": error }))
}

/// The body is the payload; its content type travels with it, but for the one that curl sends unasked.
fn plain(line: Line, headers: &HeaderMap, payload: Bytes) -> Result<Publication, String> {
    let Line { topic, qos, retain, ttl_seconds } = line;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.filter(|kind| *kind != "application/x-www-form-urlencoded");
    let content_type = kind.map(|kind| checked("the content type", kind.to_owned())).transpose()?;
    Ok(Publication {
        topic: topic_of(&topic.ok_or("it has no topic")?)?,
        payload,
        qos: qos_of(qos.map(u32::from))?,
        retain: retain.unwrap_or(false),
        ttl_seconds,
        properties: Properties { content_type, ..Properties::default() }.into(),
        wishes: wishes_of(headers)?.into(),
    })
}

/// Wishes of a publish of plain bytes: the headers of the same names as the user properties of MQTT 5, and `Idempotency-Key`.
fn wishes_of(headers: &HeaderMap) -> Result<Wishes, String> {
    let (mut wishes, now) = (Wishes::default(), wall_now());
    for (name, value) in headers {
        let name = if name == "idempotency-key" { wish_property::IDEMPOTENCY_KEY } else { name.as_str() };
        if name.starts_with(wish_property::PREFIX) {
            let value = value.to_str().map_err(|_| format!("{name}: must be ASCII"))?;
            if !wishes.take(name, value, now).map_err(|error| error.to_string())? {
                return Err(format!("{name}: there is no such wish"));
            }
        }
    }
    wishes.check(now).map_err(|error| error.to_string())?;
    Ok(wishes)
}

/// A message for each of its topics.
fn publications(message: Message<'_>) -> Result<Vec<Publication>, String> {
    let qos = qos_of(message.qos.map(u32::from))?;
    let (payload, is_text, kind) = payload_of(&message)?;
    let properties = GivenProperties {
        is_text,
        content_type: message.content_type.or(kind.map(Into::into)),
        response_topic: message.response_topic,
        correlation_data: message.correlation_data_base64.as_deref().map(base64_of).transpose()?,
        user: message.properties.0,
    };
    let properties = Arc::new(properties.checked()?);
    let wishes = Arc::new(message.wishes.checked(wall_now())?);
    let topics = match (message.topic, message.topics) {
        (Some(topic), None) => vec![topic],
        (None, Some(Few(topics))) if !topics.is_empty() => topics,
        _ => return Err("give either topic, or topics that are not none".into()),
    };
    check_key(&wishes, topics.len())?;
    let (retain, ttl_seconds) = (message.retain, message.ttl_seconds);
    let publication = |topic: String| {
        let (payload, properties, wishes) = (payload.clone(), Arc::clone(&properties), Arc::clone(&wishes));
        Ok(Publication { topic: topic_of(&topic)?, payload, qos, retain, ttl_seconds, properties, wishes })
    };
    topics.into_iter().map(publication).collect()
}

/// The payload, whether it is text, and its content type if that follows from how it was given.
fn payload_of(message: &Message<'_>) -> Result<(Bytes, bool, Option<&'static str>), String> {
    match (&message.payload, &message.payload_base64, message.payload_json) {
        (Some(text), None, None) => Ok((text.clone().into(), true, None)),
        (None, Some(text), None) => Ok((base64_of(text)?, false, None)),
        (None, None, Some(json)) => Ok((json.get().to_owned().into(), true, Some("application/json"))),
        (None, None, None) => Ok((Bytes::new(), false, None)),
        _ => Err("give one of payload, payload_base64 and payload_json".into()),
    }
}

#[cfg(test)]
mod tests {
    use postroad_base::Qos;

    use super::*;

    fn parse(text: &str) -> Result<Vec<Publication>, String> {
        serde_json::from_str(text).map_err(|error| error.to_string()).and_then(publications)
    }

    /// All topics shared the key: the second one was always another message under it, a conflict.
    #[test]
    fn a_key_is_of_one_topic() {
        let keyed = |topics: &str| parse(&format!(r#"{{"topics": [{topics}], "wishes": {{"idempotency_key": "k"}}}}"#));
        assert_eq!(keyed(r#""a""#).map(|messages| messages.len()), Ok(1));
        assert!(keyed(r#""a", "b""#).is_err_and(|why| why.contains("one topic")));
    }

    #[test]
    fn a_message_says_all_that_mqtt_can() {
        let text = r#"{"topics": ["a/b", "$client/x/c"], "payload_base64": "AAE=", "qos": 2, "retain": true, "ttl_seconds": 60,
            "content_type": "application/octet-stream", "response_topic": "r", "correlation_data_base64": "/w==",
            "properties": [["k", "1"], ["k", "2"]]}"#;
        let messages = parse(text).expect("a good message");
        let topics: Vec<&str> = messages.iter().map(|message| message.topic.as_str()).collect();
        assert_eq!(topics, ["a/b", "$client/x/c"]);
        let Publication { payload, qos, retain, ttl_seconds, properties, .. } = messages[1].clone();
        assert_eq!((&payload[..], qos, retain, ttl_seconds), (&[0, 1][..], Qos::ExactlyOnce, true, Some(60)));
        let Properties { is_text, content_type, response_topic, correlation_data, user } = (*properties).clone();
        assert_eq!((is_text, content_type.as_deref()), (false, Some("application/octet-stream")));
        assert_eq!((response_topic.as_deref(), correlation_data.as_deref()), (Some("r"), Some(&[255][..])));
        assert_eq!(user, [("k".into(), "1".into()), ("k".into(), "2".into())]);
    }

    #[test]
    fn json_goes_as_it_was_written() {
        let messages = parse(r#"{"topic": "a", "payload_json": {"n":  1.0}}"#).expect("a good message");
        assert_eq!(&messages[0].payload[..], br#"{"n":  1.0}"#);
        assert_eq!(messages[0].properties.content_type.as_deref(), Some("application/json"));
        assert_eq!(messages[0].qos, Qos::AtLeastOnce);
        let null = parse(r#"{"topic": "a", "payload_json": null}"#).expect("a good message");
        assert_eq!(&null[0].payload[..], b"null");
    }

    #[test]
    fn what_mqtt_can_t_carry_is_refused_with_a_reason() {
        let long = "x".repeat(65_536);
        let cases = [
            (r#"{"payload": "x"}"#.to_owned(), "give either topic"),
            (r#"{"topics": []}"#.to_owned(), "give either topic"),
            (r#"{"topic": "a", "topics": ["b"]}"#.to_owned(), "give either topic"),
            (r#"{"topic": "a/#"}"#.to_owned(), "topic \"a/#\""),
            (r#"{"topic": ""}"#.to_owned(), "topic \"\""),
            (r#"{"topic": "a", "qos": 3}"#.to_owned(), "qos must be 0, 1 or 2"),
            (r#"{"topic": "a", "payload": "x", "payload_json": 1}"#.to_owned(), "give one of payload"),
            (r#"{"topic": "a", "payload_base64": "%"}"#.to_owned(), "bad base64"),
            (r#"{"topic": "a", "response_topic": "b/+"}"#.to_owned(), "response_topic"),
            (r#"{"topic": "a", "content_type": "\u0000"}"#.to_owned(), "content_type must have"),
            (format!(r#"{{"topic": "a", "properties": [["k", "{long}"]]}}"#), "a property must have"),
            (r#"{"topic": "a", "ttl": 1}"#.to_owned(), "unknown field `ttl`"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err("it can't be carried");
            assert!(error.contains(expected), "{text:.60}: {error}");
        }
    }

    /// A hundred kilobytes asked for gigabytes: topics and properties multiply.
    #[test]
    fn a_short_body_can_t_ask_for_much() {
        let topics = vec![r#""a""#; 5_000].join(",");
        let pairs = vec![r#"["name","value"]"#; 2_000].join(",");
        let text = format!(r#"{{"topics": [{topics}], "properties": [{pairs}]}}"#);
        let messages = parse(&text).expect("each is well");
        assert_eq!(check_spread(&messages, 8 << 20).map_err(|problem| problem.kind), Err(Kind::TooLarge));
        assert_eq!(check_spread(&messages[..100], 8 << 20), Ok(()));
        let shared = messages.iter().all(|message| Arc::ptr_eq(&message.properties, &messages[0].properties));
        assert!(shared, "properties are copied for each topic");
        let topics = vec![r#""a""#; 10_001].join(",");
        let error = parse(&format!(r#"{{"topics": [{topics}]}}"#)).expect_err("too many");
        assert!(error.contains("more than 10000 in a list"), "{error}");
        let long = format!("[{}]", vec!["1"; 20_000].join(","));
        assert!(serde_json::from_str::<Few<&RawValue>>(&long).is_err());
    }

    #[test]
    fn a_content_type_that_mqtt_can_t_carry_is_refused() {
        let line = || Line { topic: Some("a".into()), qos: None, retain: None, ttl_seconds: None };
        let of_kind = |kind: &str| headers(&[("content-type", kind)]);
        assert!(plain(line(), &of_kind(&"x".repeat(65_536)), Bytes::new()).is_err());
        let curl = of_kind("application/x-www-form-urlencoded");
        let curl = plain(line(), &curl, Bytes::new()).expect("as curl sends it");
        assert_eq!(curl.properties.content_type, None);
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(header).collect()
    }

    #[test]
    fn wishes_come_as_an_object_or_in_headers() {
        let text = r#"{"topic": "a", "wishes": {"priority": "high", "collapse_key": "k", "deliver_after_seconds": 5,
            "idempotency_key": "order 7", "receipt": "dead", "retry_attempts_max": 3, "retry_age_max_seconds": 60}}"#;
        let message = parse(text).expect("a good message").remove(0);
        let pairs = [
            ("postroad-priority", "high"),
            ("postroad-collapse-key", "k"),
            ("postroad-deliver-after-seconds", "5"),
            ("idempotency-key", "order 7"),
            ("postroad-receipt", "dead"),
            ("postroad-retry-attempts-max", "3"),
            ("postroad-retry-age-max-seconds", "60"),
        ];
        let given = wishes_of(&headers(&pairs)).expect("good headers");
        let without_time = |wishes: &Wishes| Wishes { deliver_at: None, ..wishes.clone() };
        assert_eq!(without_time(&message.wishes), without_time(&given));
        let (at, now) = (message.wishes.deliver_at.expect("a time"), wall_now());
        assert!(at > now && at <= now.after(5_000), "{at:?} {now:?}");
        for (text, error) in [
            (r#"{"priority": "urgent"}"#, "priority: neither"),
            (r#"{"collapse_key": ""}"#, "collapse_key: must have"),
            (r#"{"retry_attempts_max": 0}"#, "retry_attempts_max: not a number above 0"),
            (r#"{"colour": "red"}"#, "unknown field"),
        ] {
            let given = parse(&format!(r#"{{"topic": "a", "wishes": {text}}}"#));
            assert!(given.as_ref().is_err_and(|given| given.contains(error)), "{text}: {given:?}");
        }
        let unknown = wishes_of(&headers(&[("postroad-colour", "red")]));
        assert_eq!(unknown, Err("postroad-colour: there is no such wish".into()));
    }

    #[test]
    fn lines_are_taken_whole() {
        let mut lines = Lines { bytes: BytesMut::from(&b"one\ntw"[..]), looked_at: 0 };
        assert_eq!(&lines.take(false)[..], b"one\n");
        assert_eq!(&lines.take(false)[..], b"");
        lines.bytes.extend_from_slice(b"o\nthree");
        assert_eq!(&lines.take(false)[..], b"two\n");
        assert_eq!(&lines.take(true)[..], b"three");
    }
}
