//! What the API asks of dead letters: the broker may have to read first, so that answers come later.

use std::collections::BTreeMap;
use std::sync::Arc;

use postroad_base::{ClientId, Extras, Letter, LetterAnswer, LetterId, Message, MessageId, QueueId, Wishes};
use postroad_broker::api::Event;
use postroad_control::{
    ClientChanged, ImportedLetter, LetterImport, LetterOrder, LetterReport, LetterResult, LettersPage, LettersQuestion,
    Properties,
};
use postroad_protocol::mqtt::Forwarded;

use super::Shard;
use super::calling::encoded;

/// Who waits for an answer, by token.
#[derive(Debug, Default)]
pub(super) struct Asking {
    last: u64,
    found: BTreeMap<u64, flume::Sender<LettersPage>>,
    done: BTreeMap<u64, flume::Sender<LetterResult>>,
    kept: BTreeMap<u64, flume::Sender<Option<LetterId>>>,
    /// Clients that are changed, and who waits for that.
    changing: BTreeMap<u64, (ClientId, flume::Sender<ClientChanged>)>,
    /// Letters that had come about when that was told last.
    letters_told: u64,
}

impl Asking {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The token of a change to this client.
    pub(super) fn changing(&mut self, client: ClientId, asker: flume::Sender<ClientChanged>) -> u64 {
        let token = self.next();
        self.changing.insert(token, (client, asker));
        token
    }

    /// Whose change that was, and who waits.
    pub(super) fn changed(&mut self, token: u64) -> Option<(ClientId, flume::Sender<ClientChanged>)> {
        self.changing.remove(&token)
    }
}

impl Shard {
    pub(super) fn find_letters(&mut self, question: LettersQuestion) {
        let LettersQuestion { query, answer } = question;
        let token = self.asking.next();
        self.asking.found.insert(token, answer);
        self.handle(Event::FindLetters { token, query: Box::new(query) });
        self.drain_effects();
    }

    pub(super) fn act_on_letter(&mut self, order: LetterOrder) {
        let LetterOrder { id, action, answer } = order;
        let token = self.asking.next();
        self.asking.done.insert(token, answer);
        self.handle(Event::Letter { token, id, action: Box::new(action) });
        self.drain_effects();
    }

    pub(super) fn import_letter(&mut self, import: LetterImport) {
        let LetterImport { import, answer } = import;
        let token = self.asking.next();
        self.asking.kept.insert(token, answer);
        let ImportedLetter { message_id, original, requeues, topic, payload, qos, retain, properties, death, parked } =
            import;
        let extras = Extras {
            death: Some(Box::new(death)),
            original,
            requeues,
            letter: None,
            wishes: Wishes::default(),
            scheduled_by: None,
        };
        let message = Message {
            id: message_id.unwrap_or(MessageId(0)),
            topic,
            payload,
            properties: encoded(&properties),
            qos,
            retain,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: Some(Box::new(extras)),
        };
        let note = parked.map(Into::into);
        self.handle(Event::ImportLetter { token, message: Arc::new(message), note });
        self.drain_effects();
    }

    pub(super) fn letter_kept(&mut self, token: u64, id: Option<LetterId>) {
        if let Some(answer) = self.asking.kept.remove(&token) {
            let _gone = answer.try_send(id);
        }
    }

    pub(super) fn letters_found(
        &mut self,
        token: u64,
        letters: Vec<Letter>,
        next: Option<LetterId>,
        ends: Vec<LetterId>,
    ) {
        if let Some(answer) = self.asking.found.remove(&token) {
            let letters = letters.into_iter().map(report).collect();
            let _gone = answer.try_send(LettersPage { letters, next, ends });
        }
    }

    /// Whoever follows letters looks again, if there are new ones.
    pub(super) fn tell_of_new_letters(&mut self) {
        let made = self.broker.letters_made();
        if made != self.asking.letters_told {
            self.asking.letters_told = made;
            self.common.letters.there_are_new_ones();
        }
    }

    pub(super) fn letter_done(&mut self, token: u64, answer: LetterAnswer) {
        if let Some(asker) = self.asking.done.remove(&token) {
            let _gone = asker.try_send(match answer {
                LetterAnswer::Done(id) => LetterResult::Done(id),
                LetterAnswer::Letter(letter) => LetterResult::Letter(Box::new(report(*letter))),
                LetterAnswer::Gone => LetterResult::Gone,
                LetterAnswer::NoClient => LetterResult::NoClient,
                LetterAnswer::QueueFull => LetterResult::QueueFull,
            });
        }
    }
}

fn report(letter: Letter) -> LetterReport {
    let properties = Arc::new(properties_of(&letter.message.properties));
    LetterReport { letter, properties }
}

/// What `calling::encoded` made, or a client.
pub(super) fn properties_of(stored: &[u8]) -> Properties {
    let forwarded = Forwarded::from_stored(stored);
    Properties {
        is_text: forwarded.payload_is_text(),
        content_type: forwarded.content_type().map(Into::into),
        response_topic: forwarded.response_topic().map(Into::into),
        correlation_data: forwarded.correlation_data().map(|data| data.to_vec().into()),
        user: forwarded.user_properties().iter().map(|(name, value)| (name.into(), value.into())).collect(),
    }
}
