//! Any bytes as requests of the gRPC API: what is let through to the decoder holds no more than a request may.

use postroad_proto::codec::{Lists, check};
use postroad_proto::v1;
use postroad_proto::v1::consume_request::Request as Said;
use postroad_proto::{ENTRIES_MAX, MESSAGES_MAX};
use prost::Message;

/// The first byte chooses what it is a request for, the second how often the rest stands there: messages written one behind the
/// other are one message, whose lists are as long as all of theirs.
pub fn check_bytes(input: &[u8]) {
    let [kind, times, rest @ ..] = input else { return };
    let bytes = rest.repeat(1 + usize::from(*times));
    match kind % 11 {
        0 => decoded::<v1::PublishRequest>(&bytes, |request| {
            [usize::from(request.message.is_some()), request.message.iter().map(properties).sum()]
        }),
        1 => decoded::<v1::PublishManyRequest>(&bytes, |request| {
            let own = request.messages.len() + request.topics.len();
            [own, request.messages.iter().map(properties).sum()]
        }),
        2 => decoded::<v1::PublishStreamRequest>(&bytes, |request| {
            [request.messages.len(), request.messages.iter().map(properties).sum()]
        }),
        3 => decoded::<v1::RegisterClientRequest>(&bytes, |request| [request.groups.len(), 0]),
        4 => decoded::<v1::ImportLetterRequest>(&bytes, |request| {
            [usize::from(request.letter.is_some()), request.letter.iter().map(|letter| letter.properties.len()).sum()]
        }),
        5 => decoded::<v1::AcknowledgePendingRequest>(&bytes, |request| [request.deliveries.len(), 0]),
        6 => decoded::<v1::SetGroupRequest>(&bytes, |request| [request.filters.len(), 0]),
        7 => decoded::<v1::Acknowledge>(&bytes, |request| [request.deliveries.len(), 0]),
        8 => decoded::<v1::Refuse>(&bytes, |request| [request.deliveries.len(), 0]),
        9 => decoded::<v1::Extend>(&bytes, |request| [request.deliveries.len(), 0]),
        _ => decoded::<v1::ConsumeRequest>(&bytes, |request| {
            let named = match &request.request {
                Some(Said::Acknowledge(said)) => said.deliveries.len(),
                Some(Said::Refuse(said)) => said.deliveries.len(),
                Some(Said::Extend(said)) => said.deliveries.len(),
                Some(Said::Begin(_)) | None => 0,
            };
            [usize::from(request.request.is_some()), named]
        }),
    }
}

fn properties(message: &v1::Message) -> usize {
    message.properties.len()
}

/// `sizes` tells how many entries a request's own lists have, and those in them.
fn decoded<T: Message + Default + Lists + PartialEq>(bytes: &[u8], sizes: impl Fn(&T) -> [usize; 2]) {
    let is_let_through = check::<T>(bytes).is_ok();
    let Ok(request) = T::decode(bytes) else { return };
    let [own, inner] = sizes(&request);
    if is_let_through {
        assert!(own <= MESSAGES_MAX, "{own} entries were let through");
        assert!(own + inner < ENTRIES_MAX, "{own} entries with {inner} in them were let through");
    }
    let encoded = request.encode_to_vec();
    assert!(T::decode(&encoded[..]).is_ok_and(|again| again == request), "it is another one after a round trip");
    if own <= MESSAGES_MAX && own + inner < ENTRIES_MAX {
        assert_eq!(check::<T>(&encoded), Ok(()), "what was written by ourselves is refused");
    }
}
