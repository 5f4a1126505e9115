//! Deliveries that wait in memory: a line for each priority, each in the order of the log. Most queues know one priority: the
//! other two lines are there once somebody needs them.

use std::collections::VecDeque;

use base::{Priority, Sequence};
use postroad_base as base;

use crate::queue::Entry;

/// Most entries that a line which has become empty has room for: 7 KiB. A client that once had a long queue does not keep its memory.
const ROOM_KEPT_MAX: usize = 128;

/// See the module head.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    normal: VecDeque<Entry>,
    others: Option<Box<Others>>,
}

#[derive(Debug, Default)]
struct Others {
    high: VecDeque<Entry>,
    low: VecDeque<Entry>,
    low_bytes: usize,
}

impl Waiting {
    /// Most priorities are the first; who goes first stands first.
    const IN_ORDER: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    pub fn len(&self) -> usize {
        self.normal.len() + self.others.as_ref().map_or(0, |others| others.high.len() + others.low.len())
    }

    pub fn len_of(&self, priority: Priority) -> usize {
        self.line(priority).map_or(0, VecDeque::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The line of ordinary ones.
    pub fn normal(&self) -> &VecDeque<Entry> {
        &self.normal
    }

    fn line(&self, priority: Priority) -> Option<&VecDeque<Entry>> {
        match priority {
            Priority::Normal => Some(&self.normal),
            Priority::High => self.others.as_ref().map(|others| &others.high),
            Priority::Low => self.others.as_ref().map(|others| &others.low),
        }
    }

    fn line_mut(&mut self, priority: Priority) -> &mut VecDeque<Entry> {
        match priority {
            Priority::Normal => &mut self.normal,
            Priority::High => &mut self.others.get_or_insert_default().high,
            Priority::Low => &mut self.others.get_or_insert_default().low,
        }
    }

    /// At the end of its line.
    #[inline]
    pub fn push(&mut self, entry: Entry) {
        if entry.priority() == Priority::Normal {
            return self.normal.push_back(entry);
        }
        self.note_come(&entry);
        self.line_mut(entry.priority()).push_back(entry);
    }

    /// The one that was taken last comes back.
    pub fn unpop(&mut self, entry: Entry) {
        self.note_come(&entry);
        self.line_mut(entry.priority()).push_front(entry);
    }

    pub fn front(&self, priority: Priority) -> Option<&Entry> {
        self.line(priority)?.front()
    }

    #[inline]
    pub fn pop(&mut self, priority: Priority) -> Option<Entry> {
        self.pop_keeping(priority, ROOM_KEPT_MAX)
    }

    /// The same; a line that becomes empty by it keeps no more room than that.
    #[inline]
    fn pop_keeping(&mut self, priority: Priority, kept_max: usize) -> Option<Entry> {
        if priority != Priority::Normal {
            return self.pop_other(priority, kept_max);
        }
        let entry = self.normal.pop_front();
        give_room(&mut self.normal, kept_max);
        entry
    }

    fn pop_other(&mut self, priority: Priority, kept_max: usize) -> Option<Entry> {
        self.others.as_ref()?;
        let line = self.line_mut(priority);
        let entry = line.pop_front();
        give_room(line, kept_max);
        self.note_gone(entry.as_ref());
        entry
    }

    /// The priority of the one that goes first.
    #[inline]
    pub fn first(&self) -> Option<Priority> {
        if self.others.is_none() {
            return (!self.normal.is_empty()).then_some(Priority::Normal);
        }
        Self::IN_ORDER.into_iter().find(|priority| self.front(*priority).is_some())
    }

    /// The oldest one of those that fit, whatever its priority.
    fn oldest_that(&self, fits: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        let fronts = Self::IN_ORDER.into_iter().filter_map(|priority| self.front(priority));
        fronts.filter(|entry| fits(entry)).min_by_key(|entry| entry.sequence)
    }

    /// The oldest one, whatever its priority.
    pub fn oldest(&self) -> Option<&Entry> {
        self.oldest_that(|_| true)
    }

    /// The oldest one that the old generation has, of those in front of their lines.
    pub fn oldest_stored(&self) -> Option<&Entry> {
        self.oldest_that(|entry| entry.stored)
    }

    /// Takes the oldest one, if the old generation has it and it is no newer than that. The queue is then read from the disk: a line
    /// that is empty keeps no room.
    pub fn pop_stored(&mut self, upto: Sequence) -> Option<Entry> {
        let priority = self.oldest_that(|entry| entry.stored && entry.sequence <= upto)?.priority();
        self.pop_keeping(priority, 0)
    }

    /// The place of this delivery in its line. Those that are not logged may share a sequence.
    fn place_of(&self, sequence: Sequence, fits: impl Fn(&Entry) -> bool) -> Option<(Priority, usize)> {
        // Most stand in the line of ordinary ones.
        [Priority::Normal, Priority::High, Priority::Low].into_iter().find_map(|priority| {
            let line = self.line(priority)?;
            let first = line.partition_point(|entry| entry.sequence < sequence);
            let mut same = line.range(first..).take_while(|entry| entry.sequence == sequence);
            Some((priority, first + same.position(&fits)?))
        })
    }

    /// Those behind this one, of each line so many.
    pub fn behind(&self, after: Sequence, limit: usize) -> impl Iterator<Item = &Entry> {
        let lines = Self::IN_ORDER.into_iter().filter_map(|priority| self.line(priority));
        lines.flat_map(move |line| line.range(line.partition_point(|entry| entry.sequence <= after)..).take(limit))
    }

    pub fn get_mut(&mut self, sequence: Sequence) -> Option<&mut Entry> {
        let (priority, place) = self.place_of(sequence, |_| true)?;
        self.line_mut(priority).get_mut(place)
    }

    /// Takes this delivery out, wherever it stands.
    pub fn take(&mut self, sequence: Sequence) -> Option<Entry> {
        self.take_that(sequence, |_| true)
    }

    /// The same, of those with this sequence the one that fits.
    pub fn take_that(&mut self, sequence: Sequence, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let (priority, place) = self.place_of(sequence, fits)?;
        let entry = self.line_mut(priority).remove(place);
        self.note_gone(entry.as_ref());
        entry
    }

    pub fn find(&self, sequence: Sequence, fits: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        let (priority, place) = self.place_of(sequence, fits)?;
        self.line(priority)?.get(place)
    }

    fn note_gone(&mut self, entry: Option<&Entry>) {
        if let (Some(others), Some(entry)) = (&mut self.others, entry)
            && entry.priority() == Priority::Low
        {
            others.low_bytes -= entry.size();
        }
        self.others.take_if(|others| others.high.is_empty() && others.low.is_empty());
    }

    fn note_come(&mut self, entry: &Entry) {
        if entry.priority() == Priority::Low {
            self.others.get_or_insert_default().low_bytes += entry.size();
        }
    }

    /// Bytes of the low ones.
    pub fn low_bytes(&self) -> usize {
        self.others.as_ref().map_or(0, |others| others.low_bytes)
    }

    /// The lines, who goes first first.
    pub fn lines_mut(&mut self) -> impl Iterator<Item = &mut VecDeque<Entry>> {
        let (high, low) = self.others.as_deref_mut().map(|Others { high, low, .. }| (high, low)).unzip();
        high.into_iter().chain([&mut self.normal]).chain(low)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        Self::IN_ORDER.into_iter().filter_map(|priority| self.line(priority)).flatten()
    }
}

/// Gives the room of an empty line back, if it is more than that.
fn give_room(line: &mut VecDeque<Entry>, kept_max: usize) {
    if line.is_empty() && line.capacity() > kept_max {
        *line = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::entry;

    fn line_of(entries: u64) -> Waiting {
        let mut waiting = Waiting::default();
        (1..=entries).for_each(|sequence| waiting.push(Entry { stored: true, ..entry(sequence) }));
        waiting
    }

    /// 100,000 clients that were away with 100 messages each once kept 700 MiB of room for what the old generation had.
    #[test]
    fn what_leaves_for_the_old_generation_leaves_no_room_behind() {
        let mut waiting = line_of(100);
        while waiting.pop_stored(Sequence(99)).is_some() {}
        assert!(waiting.len() == 1 && waiting.normal.capacity() >= 100, "{}", waiting.normal.capacity());
        assert_eq!(waiting.pop_stored(Sequence(100)).map(|entry| entry.sequence), Some(Sequence(100)));
        assert_eq!(waiting.normal.capacity(), 0);
    }

    #[test]
    fn a_queue_that_was_long_gives_its_room_back_and_a_short_one_keeps_it() {
        for (entries, is_kept) in [(ROOM_KEPT_MAX as u64, true), (10_000, false)] {
            let mut waiting = line_of(entries);
            while waiting.pop(Priority::Normal).is_some() {}
            assert_eq!(waiting.normal.capacity() > 0, is_kept, "{entries}");
        }
    }
}
