//! Ids of publications whose publisher wants receipts: its PUBACK or PUBREC says under which id the message was taken in.

use std::collections::VecDeque;

use postroad_base::{MessageId, Tag};

/// Publications that are not answered yet, in the order in which they were taken in.
#[derive(Debug, Default)]
pub(super) struct Taken(VecDeque<(Tag, MessageId)>);

impl Taken {
    /// The next answer under this tag carries the id.
    pub(super) fn note(&mut self, tag: Tag, id: MessageId) {
        self.0.push_back((tag, id));
    }

    /// The answer leaves.
    pub(super) fn take(&mut self, tag: Tag) -> Option<MessageId> {
        let place = self.0.iter().position(|(known, _)| *known == tag)?;
        self.0.remove(place).map(|(_, id)| id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
