//! For tests of codecs: what a stream says may not depend on where the network cuts it [INT-5].

use postroad_protocol::frame::{Codec, Decoded};

/// A codec that reads a stream in another way when it is cut, or breaks its contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SplitError(pub(crate) String);

/// Reads a stream whole, cut in two at every byte, and byte by byte. Returns its frames in words, and the fault that ends it if one does.
///
/// # Errors
/// If it is not read in the same way each time.
pub fn check_splits(codec: &mut dyn Codec, stream: &[u8], client: &str) -> Result<Vec<String>, SplitError> {
    let whole = read(codec, &[stream], client)?;
    for cut in 0..=stream.len() {
        let (front, back) = stream.split_at(cut);
        same(&whole, read(codec, &[front, back], client)?, &format!("cut at byte {cut}"))?;
    }
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    same(&whole, read(codec, &single, client)?, "byte by byte")?;
    Ok(whole)
}

fn same(whole: &[String], cut: Vec<String>, how: &str) -> Result<(), SplitError> {
    if whole == cut {
        return Ok(());
    }
    Err(SplitError(format!("{how} the stream says {cut:?}, and as a whole {whole:?}")))
}

/// As the server does it: decodes whenever there is as much as was said to be needed.
fn read(codec: &mut dyn Codec, pieces: &[&[u8]], client: &str) -> Result<Vec<String>, SplitError> {
    let (mut said, mut kept, mut wanted) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        kept.extend_from_slice(piece);
        while kept.len() >= wanted && !kept.is_empty() {
            match codec.decode(&kept, client) {
                Ok(Decoded::Incomplete { needed }) if needed > kept.len() => wanted = needed,
                Ok(Decoded::Incomplete { needed }) => {
                    return Err(SplitError(format!("{needed} bytes are needed, and {} are there", kept.len())));
                }
                Ok(Decoded::Frame { frame, size }) => {
                    said.push(format!("{frame:?}"));
                    kept.drain(..size);
                    wanted = 0;
                }
                Err(error) => {
                    said.push(format!("broken: {}", error.fault.name()));
                    return Ok(said);
                }
            }
        }
    }
    Ok(said)
}
