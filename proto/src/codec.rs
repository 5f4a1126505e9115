//! How messages are read and written: as Protocol Buffers, with what is in lists counted before any of it is decoded.
//!
//! An empty message takes two bytes on the wire and two hundred in memory, so a bound on bytes alone would let a request ask
//! for a hundred times its size. Who adds a list to a request adds it to [`Lists`] here.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::v1;

/// Messages of one request: each topic counts.
pub const MESSAGES_MAX: usize = 10_000;
/// Entries of all lists of a request together: messages, topics, properties.
pub const ENTRIES_MAX: usize = 65_536;

/// What is in a message of the API's: which fields are lists, and which hold messages that have lists.
pub trait Lists {
    /// The fields that count.
    const FIELDS: &'static [Field] = &[];
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its number in the definition.
    number: u64,
    /// What counts in each of its entries.
    fields: &'static [Field],
}

const fn field(number: u64, fields: &'static [Field]) -> Field {
    Field { number, fields }
}

const MESSAGE: &[Field] = &[field(10, &[])];
const LETTER: &[Field] = &[field(13, &[])];

/// What is said of deliveries.
const DELIVERIES: &[Field] = &[field(2, &[])];

impl Lists for v1::PublishRequest {
    const FIELDS: &'static [Field] = &[field(1, MESSAGE)];
}

impl Lists for v1::PublishManyRequest {
    const FIELDS: &'static [Field] = &[field(1, MESSAGE), field(2, &[])];
}

impl Lists for v1::PublishStreamRequest {
    const FIELDS: &'static [Field] = &[field(2, MESSAGE)];
}

impl Lists for v1::RegisterClientRequest {
    const FIELDS: &'static [Field] = &[field(3, &[])];
}

impl Lists for v1::AcknowledgePendingRequest {
    const FIELDS: &'static [Field] = DELIVERIES;
}

impl Lists for v1::ImportLetterRequest {
    const FIELDS: &'static [Field] = &[field(1, LETTER)];
}

impl Lists for v1::SetGroupRequest {
    const FIELDS: &'static [Field] = &[field(2, &[])];
}

impl Lists for v1::Acknowledge {
    const FIELDS: &'static [Field] = DELIVERIES;
}

impl Lists for v1::Refuse {
    const FIELDS: &'static [Field] = DELIVERIES;
}

impl Lists for v1::Extend {
    const FIELDS: &'static [Field] = DELIVERIES;
}

impl Lists for v1::ConsumeRequest {
    const FIELDS: &'static [Field] = &[field(3, DELIVERIES), field(4, DELIVERIES), field(5, DELIVERIES)];
}

// Without lists, or what the server says.
impl Lists for v1::PublishResponse {}
impl Lists for v1::PublishManyResponse {}
impl Lists for v1::PublishStreamResponse {}
impl Lists for v1::ListScheduledRequest {}
impl Lists for v1::ListScheduledResponse {}
impl Lists for v1::CancelScheduledRequest {}
impl Lists for v1::CancelScheduledResponse {}
impl Lists for v1::ListPendingRequest {}
impl Lists for v1::ListPendingResponse {}
impl Lists for v1::AcknowledgePendingResponse {}
impl Lists for v1::ListClientsRequest {}
impl Lists for v1::ListClientsResponse {}
impl Lists for v1::TopClientsRequest {}
impl Lists for v1::TopClientsResponse {}
impl Lists for v1::GetClientRequest {}
impl Lists for v1::DisconnectClientRequest {}
impl Lists for v1::DrainClientRequest {}
impl Lists for v1::UnregisterClientRequest {}
impl Lists for v1::UnregisterClientResponse {}
impl Lists for v1::Client {}
impl Lists for v1::ListLettersRequest {}
impl Lists for v1::ListLettersResponse {}
impl Lists for v1::GetLetterRequest {}
impl Lists for v1::LeaseLettersRequest {}
impl Lists for v1::LeaseLettersResponse {}
impl Lists for v1::RequeueLetterRequest {}
impl Lists for v1::RequeueLetterResponse {}
impl Lists for v1::DropLetterRequest {}
impl Lists for v1::DropLetterResponse {}
impl Lists for v1::ParkLetterRequest {}
impl Lists for v1::ParkLetterResponse {}
impl Lists for v1::UnparkLetterRequest {}
impl Lists for v1::UnparkLetterResponse {}
impl Lists for v1::ReleaseLetterRequest {}
impl Lists for v1::ReleaseLetterResponse {}
impl Lists for v1::ExportLettersRequest {}
impl Lists for v1::ImportLetterResponse {}
impl Lists for v1::FollowLettersRequest {}
impl Lists for v1::FollowLettersResponse {}
impl Lists for v1::DeadLetter {}
impl Lists for v1::ListSubscriptionsRequest {}
impl Lists for v1::ListSubscriptionsResponse {}
impl Lists for v1::ListFiltersRequest {}
impl Lists for v1::ListFiltersResponse {}
impl Lists for v1::ListRetainedRequest {}
impl Lists for v1::ListRetainedResponse {}
impl Lists for v1::GetMetricsRequest {}
impl Lists for v1::Metrics {}
impl Lists for v1::ReloadRequest {}
impl Lists for v1::ReloadResponse {}
impl Lists for v1::DrainRequest {}
impl Lists for v1::DrainResponse {}
impl Lists for v1::SetGroupResponse {}
impl Lists for v1::ListGroupsRequest {}
impl Lists for v1::ListGroupsResponse {}
impl Lists for v1::GetGroupRequest {}
impl Lists for v1::DeleteGroupRequest {}
impl Lists for v1::DeleteGroupResponse {}
impl Lists for v1::Group {}
impl Lists for v1::ConsumeResponse {}
impl Lists for v1::TakeRequest {}
impl Lists for v1::Deliveries {}
impl Lists for v1::Answered {}
impl Lists for v1::GetStatusRequest {}
impl Lists for v1::Status {}
impl Lists for v1::FollowReceiptsRequest {}
impl Lists for v1::Receipt {}

/// Whether a message of this kind holds no more than it may: at most [`MESSAGES_MAX`] in its own lists, and [`ENTRIES_MAX`] in
/// all. What can't be counted is refused: the decoder might go on where this does not (groups, which nothing here has).
///
/// # Errors
/// What is too much, in words.
pub fn check<T: Lists>(bytes: &[u8]) -> Result<(), String> {
    let mut left = ENTRIES_MAX;
    let Some(own) = count(bytes, T::FIELDS, &mut left) else {
        return Err("not Protocol Buffers, or with groups, which nothing here has".into());
    };
    if own > MESSAGES_MAX {
        return Err(format!("more than {MESSAGES_MAX} messages, where each topic counts: send them in parts"));
    }
    if left == 0 {
        return Err(format!("{ENTRIES_MAX} or more messages, topics and properties: send them in parts"));
    }
    Ok(())
}

/// How many entries these fields have; takes those and all that are in them from `left`. `None`: it can't be told.
fn count(mut bytes: &[u8], fields: &[Field], left: &mut usize) -> Option<usize> {
    let mut own = 0;
    while *left > 0 && !bytes.is_empty() {
        let (number, value) = next_field(&mut bytes)?;
        if let Some(field) = fields.iter().find(|field| field.number == number) {
            own += 1;
            *left -= 1;
            if !field.fields.is_empty() {
                count(value, field.fields, left)?; // else it is text, or bytes
            }
        }
    }
    Some(own)
}

/// Takes a field from the front: its number, and its bytes if it has a length. `None` where nothing can be understood.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let key = varint(bytes)?;
    let (size, is_counted) = match key & 7 {
        0 => {
            varint(bytes)?;
            (0, false)
        }
        1 => (8, false),
        2 => (usize::try_from(varint(bytes)?).ok()?, true),
        5 => (4, false),
        _ => return None,
    };
    let (value, rest) = bytes.split_at_checked(size)?;
    *bytes = rest;
    Some((key >> 3, if is_counted { value } else { &[] }))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7F).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Reads `U` and writes `T`.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Lists + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Writer<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> Writer<T> {
        Writer(PhantomData)
    }

    fn decoder(&mut self) -> Reader<U> {
        Reader(PhantomData)
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct Writer<T>(PhantomData<T>);

impl<T: Message> Encoder for Writer<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Reads messages.
#[derive(Debug)]
pub struct Reader<U>(PhantomData<U>);

impl<U: Message + Default + Lists> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    /// The buffer holds the whole message, in one piece.
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        check::<U>(buffer.chunk()).map_err(Status::resource_exhausted)?;
        U::decode(buffer).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(properties: usize) -> v1::Message {
        let property = v1::Property { name: "n".into(), value: String::new() };
        v1::Message { topic: "a".into(), properties: vec![property; properties], ..v1::Message::default() }
    }

    #[test]
    fn lists_are_counted_with_what_is_in_them() {
        let many = |messages: usize, properties: usize| {
            let messages = vec![message(properties); messages];
            v1::PublishStreamRequest { number: u64::MAX, messages }.encode_to_vec()
        };
        let check = check::<v1::PublishStreamRequest>;
        assert_eq!(check(&many(MESSAGES_MAX, 5)), Ok(()));
        assert!(check(&many(MESSAGES_MAX + 1, 0)).expect_err("too many").contains("10000 messages"));
        assert!(check(&many(100, 1_000)).expect_err("too many").contains("65536 or more"));
        let topics = v1::PublishManyRequest { messages: vec![message(0)], topics: vec!["b".into(); MESSAGES_MAX] };
        assert!(super::check::<v1::PublishManyRequest>(&topics.encode_to_vec()).is_err());
        let one = v1::PublishRequest { message: Some(message(ENTRIES_MAX)) };
        assert!(super::check::<v1::PublishRequest>(&one.encode_to_vec()).is_err());
    }

    /// A topic was counted as if it were a message: every request with one was refused.
    #[test]
    fn what_is_as_it_should_be_passes() {
        let message = v1::Message { topic: "kitchen/news".into(), ..message(3) };
        let many = v1::PublishManyRequest { messages: vec![message.clone(); 2], topics: vec!["log/orders".into(); 3] };
        assert_eq!(check::<v1::PublishManyRequest>(&many.encode_to_vec()), Ok(()));
        let one = v1::PublishRequest { message: Some(message) };
        assert_eq!(check::<v1::PublishRequest>(&one.encode_to_vec()), Ok(()));
    }

    /// A payload may hold anything: what looks like a list there is none.
    #[test]
    fn payloads_are_not_looked_into() {
        let inner =
            v1::PublishStreamRequest { number: 0, messages: vec![message(0); MESSAGES_MAX + 1] }.encode_to_vec();
        let message = v1::Message { content: Some(v1::message::Content::Payload(inner)), ..message(0) };
        let request = v1::PublishStreamRequest { number: 1, messages: vec![message] }.encode_to_vec();
        assert_eq!(check::<v1::PublishStreamRequest>(&request), Ok(()));
    }

    #[test]
    fn what_can_not_be_counted_is_refused() {
        for bytes in [&[0x80; 20][..], &[0x12, 0xFF], &[0x13], &[0x12, 0x80], &[0x11, 1, 2], &[0xFF]] {
            assert!(check::<v1::PublishStreamRequest>(bytes).is_err(), "{bytes:?}");
        }
    }

    /// The decoder passes over a group that it does not know; the count ended there, and what followed was not counted.
    #[test]
    fn nothing_hides_behind_a_group() {
        let empty_group = [0xA3, 0x06, 0xA4, 0x06]; // field 100
        let many = v1::PublishStreamRequest { number: 1, messages: vec![message(0); MESSAGES_MAX + 1] }.encode_to_vec();
        let bytes = [&empty_group[..], &many].concat();
        assert!(v1::PublishStreamRequest::decode(&bytes[..]).is_ok(), "the decoder takes it");
        assert!(check::<v1::PublishStreamRequest>(&bytes).is_err());
    }
}
