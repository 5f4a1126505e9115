//! Which codec the frames of a listener have. A shard has its own of each; plugins put others in their place.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use postroad_base::Now;
use postroad_plugins::PluginName;
use postroad_plugins::generations::Plugins;
use postroad_protocol::frame::{
    Abilities, Answers, Codec, Declared, Decoded, Fault, Frame, FrameError, Plan, examples,
};

use crate::config::{Listener, ListenerProtocol};

/// Where codecs come from. Shared by all shards; each makes its own.
pub trait Codecs: Send + Sync {
    /// A codec of this name, for the shard that asks.
    fn make(&self, name: &str) -> Option<Box<dyn Codec>>;
}

/// Declarations by name.
#[derive(Debug, Default)]
pub struct Plans(Vec<(String, Arc<Plan>)>);

impl Plans {
    /// These.
    pub fn new(plans: impl IntoIterator<Item = (String, Plan)>) -> Self {
        Self(plans.into_iter().map(|(name, plan)| (name, Arc::new(plan))).collect())
    }

    /// The four frames that are shipped.
    pub fn shipped() -> Self {
        let plan = |(name, spec): (&str, _)| {
            (name.to_owned(), Plan::compile(&spec).expect("a test compiles all that are shipped"))
        };
        Self::new(examples::all().into_iter().map(plan))
    }
}

impl Codecs for Plans {
    fn make(&self, name: &str) -> Option<Box<dyn Codec>> {
        let (_, plan) = self.0.iter().find(|(known, _)| known == name)?;
        Some(Box::new(Declared::new(Arc::clone(plan))))
    }
}

/// The codecs of a shard's listeners.
pub(crate) struct CodecsOfShard {
    by_listener: Vec<Option<Box<dyn Codec>>>,
    gone: Gone,
    /// What functions of scripts find.
    time: Rc<Cell<Now>>,
}

impl CodecsOfShard {
    /// A plugin's where there is one of this name, else one of `others`.
    pub(crate) fn new(listeners: &[Listener], plugins: &Plugins, others: &dyn Codecs) -> Self {
        let time = Rc::default();
        let make = |listener: &Listener| codec_name(listener).and_then(|name| make(name, plugins, others, &time));
        Self { by_listener: listeners.iter().map(make).collect(), gone: Gone, time }
    }

    /// That of a listener. One that speaks in frames and has none any more breaks them all.
    pub(crate) fn of(&mut self, listener: u16) -> &mut dyn Codec {
        match self.by_listener.get_mut(usize::from(listener)) {
            Some(Some(codec)) => &mut **codec,
            _ => &mut self.gone,
        }
    }

    pub(crate) fn set_time(&self, now: Now) {
        self.time.set(now);
    }
}

fn make(name: &str, plugins: &Plugins, others: &dyn Codecs, time: &Rc<Cell<Now>>) -> Option<Box<dyn Codec>> {
    let of_plugin = PluginName::new(name).and_then(|name| plugins.codec(&name, time));
    match of_plugin {
        Some(Ok(codec)) => Some(codec),
        Some(Err(flaw)) => {
            tracing::error!(%flaw, "a codec that had compiled can't be made");
            None
        }
        None => others.make(name),
    }
}

/// The first listener that would have no codec, in words, if plugins had what `has` says.
pub(crate) fn missing(
    listeners: &[Listener],
    has: impl Fn(&PluginName) -> bool,
    others: &dyn Codecs,
) -> Option<String> {
    let lacks = |name: &&str| !PluginName::new(name).is_some_and(|name| has(&name)) && others.make(name).is_none();
    let mut named = listeners.iter().filter_map(|listener| Some((&listener.name, codec_name(listener)?)));
    named.find(|(_, codec)| lacks(codec)).map(|(name, codec)| format!("listener {name}: there is no codec {codec:?}"))
}

/// What a listener calls its codec, if it speaks in frames.
fn codec_name(listener: &Listener) -> Option<&str> {
    match &listener.protocol {
        ListenerProtocol::Mqtt => None,
        ListenerProtocol::Frames { codec } => Some(codec),
    }
}

/// In the place of a codec that is not there.
#[derive(Debug)]
struct Gone;

impl Gone {
    fn error() -> FrameError {
        FrameError::new(Fault::Function, "the listener's codec is gone")
    }
}

impl Codec for Gone {
    fn decode<'a>(&'a mut self, _bytes: &'a [u8], _client: &str) -> Result<Decoded<'a>, FrameError> {
        Err(Self::error())
    }

    fn encode(&mut self, _frame: &Frame<'_>, _into: &mut Vec<u8>) -> Result<(), FrameError> {
        Err(Self::error())
    }

    fn frame_bytes_max(&self) -> usize {
        0
    }

    fn abilities(&self) -> Abilities {
        Abilities { answers: Answers::default(), pushes: None, keep_alive_seconds: 0, clean_start: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(protocol: ListenerProtocol) -> Listener {
        Listener { name: "a".to_owned(), address: ([127, 0, 0, 1], 0).into(), protocol }
    }

    #[test]
    fn what_is_missing_is_named() {
        let frames = |codec: &str| listener(ListenerProtocol::Frames { codec: codec.to_owned() });
        let missing = |has: &str| {
            let listeners = [listener(ListenerProtocol::Mqtt), frames("gt06"), frames("own")];
            super::missing(&listeners, |name| name.as_str() == has, &Plans::shipped())
        };
        assert_eq!(missing("own"), None);
        assert_eq!(missing("other").as_deref(), Some("listener a: there is no codec \"own\""));
    }

    #[test]
    fn a_listener_has_its_codec_or_one_that_breaks_all() {
        let frames = |codec: &str| listener(ListenerProtocol::Frames { codec: codec.to_owned() });
        let listeners = [listener(ListenerProtocol::Mqtt), frames("vehicle40"), frames("nothing")];
        let mut codecs = CodecsOfShard::new(&listeners, &Plugins::new(postroad_base::ShardId(0)), &Plans::shipped());
        assert_eq!([0, 1, 2, 3].map(|place| codecs.of(place).frame_bytes_max()), [0, 5, 0, 0]);
        assert!(
            codecs.of(2).decode(b"any", "").is_err()
                && codecs.of(2).encode(&Frame::new(postroad_protocol::frame::Kind::Pong), &mut Vec::new()).is_err()
        );
    }
}
