//! Deliveries that wait in memory: a line for each priority, each in the order of the log. Most queues know one priority: the
//! other two lines are there once somebody needs them.

use std::collections::VecDeque;

use base::{Priority, Sequence};
use postroad_base as base;

use crate::queue::Entry;

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

    pub fn pop(&mut self, priority: Priority) -> Option<Entry> {
        if self.others.is_none() && priority != Priority::Normal {
            return None;
        }
        let entry = self.line_mut(priority).pop_front();
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

    /// Takes the oldest one, if the old generation has it and it is no newer than that.
    pub fn pop_stored(&mut self, upto: Sequence) -> Option<Entry> {
        let priority = self.oldest_that(|entry| entry.stored && entry.sequence <= upto)?.priority();
        self.pop(priority)
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
